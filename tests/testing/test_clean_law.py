"""What the law of clean hands must catch: every way to leave something behind, and what is set without a claim."""

from __future__ import annotations

import pytest
import torch

from nni_supernet_ext import testing
from nni_supernet_ext.core import SupernetCallback

NOTHING = lambda *arguments: None  # noqa: E731


@pytest.fixture(autouse=True)
def as_before():
    """Take out of torch what the wrong methods put there."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.nn.modules.module._global_forward_hooks.clear()


def _case(callback):
    return testing.MethodCase("Wrong", lambda: {"callbacks": [callback()]}, no_neutral="It is wrong.")


def _leaving(leave):
    """A callback that does something to the plan once, and never takes it back."""

    class Leaving(SupernetCallback):
        def prepare(self, plan):
            leave(plan)

    return _case(Leaving)


def _setting(entry, value, claimed=(), restored=False):
    """A callback that sets an entry of the parameter groups for every update."""

    class Setting(SupernetCallback):
        claims = frozenset(claimed)

        def on_before_update(self, state, optimizer):
            self.before = optimizer.param_groups[0][entry]
            optimizer.param_groups[0][entry] = value

        def on_after_update(self, state, optimizer):
            if restored:
                optimizer.param_groups[0][entry] = self.before

    return _case(Setting)


def _wrap_forward(plan):
    inner = plan.supernet.model.forward
    plan.supernet.model.forward = lambda images: inner(images)


def _wrap_training_step(plan):
    inner = plan.training_module.training_step
    plan.training_module.training_step = lambda *arguments: inner(*arguments)


LEFT = {
    "full backward pre-hook": (
        lambda plan: plan.supernet.model.head.register_full_backward_pre_hook(NOTHING),
        "hooks on .*_backward_pre_hooks",
    ),
    "gradient accumulation": (
        lambda plan: plan.supernet.model.head.weight.register_post_accumulate_grad_hook(NOTHING),
        "hooks on .*head.weight._post_accumulate_grad_hooks",
    ),
    "state dict": (
        lambda plan: plan.supernet.model.register_state_dict_post_hook(NOTHING),
        "hooks on .*_state_dict_hooks",
    ),
    "state dict loaded": (
        lambda plan: plan.supernet.model.register_load_state_dict_post_hook(NOTHING),
        "hooks on .*_load_state_dict_post_hooks",
    ),
    "all modules": (
        lambda plan: torch.nn.modules.module.register_module_forward_hook(NOTHING),
        "hooks on .*torch.nn._global_forward_hooks",
    ),
    "optimizer": (
        lambda plan: plan.optimizer.register_step_pre_hook(NOTHING),
        "hooks on SGD._optimizer_step_pre_hooks",
    ),
    "frozen": (lambda plan: plan.supernet.model.head.weight.requires_grad_(False), "`requires_grad` changed on"),
    "forward": (_wrap_forward, "methods replaced: .*forward"),
    "training step": (_wrap_training_step, "methods replaced: .*training_step"),
    "deterministic mode": (
        lambda plan: torch.use_deterministic_algorithms(True),
        "torch with other global settings: .*deterministic algorithms",
    ),
}


@pytest.mark.parametrize("leave", LEFT)
def test_what_is_left_behind(leave, tmp_path):
    action, message = LEFT[leave]
    with pytest.raises(AssertionError, match=f"Wrong leaves {message}"):
        testing.check_clean(_leaving(action), tmp_path)


@pytest.mark.parametrize(("entry", "value"), [("lr", 0.01), ("momentum", 0.5), ("weight_decay", 0.1)])
def test_parameter_groups_are_left_as_they_were(entry, value, tmp_path):
    with pytest.raises(AssertionError, match=f"Wrong leaves `{entry}` of the optimizer changed: .* {value} now"):
        testing.check_clean(_setting(entry, value, claimed=("lr", "momentum")), tmp_path)


@pytest.mark.parametrize(("entry", "claim"), [("lr", "momentum"), ("momentum", "lr"), ("nesterov", "lr")])
def test_nothing_is_set_without_its_claim(entry, claim, tmp_path):
    value = True if entry == "nesterov" else 0.01
    with pytest.raises(AssertionError, match=f"Wrong sets `{entry}` .* without a claim on it"):
        testing.check_clean(_setting(entry, value, claimed=(claim,), restored=True), tmp_path)


@pytest.mark.parametrize(("entry", "claim"), [("lr", "lr"), ("momentum", "momentum"), ("weight_decay", "lr")])
def test_what_is_claimed_may_be_set(entry, claim, tmp_path):
    testing.check_clean(_setting(entry, 0.01, claimed=(claim,), restored=True), tmp_path)
