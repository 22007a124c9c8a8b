"""What the law of clean hands must catch: every way to leave something behind, and what is set without a claim."""

from __future__ import annotations

import pytest
import torch

from nni_supernet_ext import testing
from nni_supernet_ext.core import Draw, PathSampler, SupernetCallback
from nni_supernet_ext.paths import UniformPathSampler

NOTHING = lambda *arguments: None  # noqa: E731


@pytest.fixture(autouse=True)
def as_before():
    """Take out of torch what the wrong methods put there."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = False
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


def _set(find, name, value):
    return lambda plan: setattr(find(plan), name, value)


def _norm(plan):
    return plan.supernet.model.norm


def _set_benchmark(plan):
    torch.backends.cudnn.benchmark = True


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
    "matmul precision": (
        lambda plan: torch.set_float32_matmul_precision("medium"),
        "torch with other global settings: .*float32 matmul precision",
    ),
    "cudnn benchmark": (_set_benchmark, "torch with other global settings: .*cudnn benchmark"),
    "BN momentum": (_set(_norm, "momentum", 0.5), "other attributes on modules: .*norm.momentum"),
    "mode": (lambda plan: _norm(plan).eval(), "other attributes on modules: .*norm.training"),
    "attribute": (_set(_norm, "mine", object()), "other attributes on modules: .*norm.mine"),
    "buffer": (
        lambda plan: plan.supernet.model.register_buffer("mine", torch.zeros(1), persistent=False),
        r"parameters or buffers added or removed: \['mine'\]",
    ),
    "trainer's limit": (
        _set(lambda plan: plan.trainer, "limit_val_batches", 1),
        r"settings of the trainer changed: \['limit_val_batches'\]",
    ),
    "data": (
        lambda plan: plan.train_loader().dataset.tensors[0].mul_(0.5),
        "tensors of the data changed in place: 1",
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


class TestDraws:
    """They are the path sampler's, from the moment it returns them to the end of the step."""

    @staticmethod
    def _caught(settings, hook, tmp_path):
        message = f"Wrong changes the draws of a step that the path sampler has returned: after `{hook}`"
        with pytest.raises(AssertionError, match=message):
            testing.check_clean(testing.MethodCase("Wrong", settings, no_neutral="It is wrong."), tmp_path)

    def test_a_sample_changed_before_the_step(self, tmp_path):
        class Changing(SupernetCallback):
            def on_draws(self, state):
                state.draws[0].sample["op"] = "conv"

        self._caught(lambda: {"callbacks": [Changing()]}, "on_draws", tmp_path)

    def test_other_draws(self, tmp_path):
        class Replacing(SupernetCallback):
            def on_draws(self, state):
                state.draws = [Draw({**draw.sample, "op": "conv"}) for draw in state.draws]

        self._caught(lambda: {"callbacks": [Replacing()]}, "on_draws", tmp_path)

    def test_a_weight_in_place_of_a_scale(self, tmp_path):
        class Weighing(SupernetCallback):
            def on_draws(self, state):
                state.draws = [Draw(draw.sample, weight=2.0) for draw in state.draws]

        self._caught(lambda: {"callbacks": [Weighing()]}, "on_draws", tmp_path)

    @pytest.mark.parametrize("hook", ["on_after_draw", "on_before_update", "on_after_update"])
    def test_a_sampler_that_changes_its_own_later(self, hook, tmp_path):
        class Own(PathSampler):
            def draws(self, rng, state):
                return [Draw({"op": "linear", "width": 4})]

        def change(self, state, *arguments):
            state.draws[0].sample["op"] = "conv"

        setattr(Own, hook, change)
        self._caught(lambda: {"paths": Own()}, hook, tmp_path)

    def test_the_sampler_gets_its_method_back(self, tmp_path):
        samplers = []

        def settings():
            samplers.append(UniformPathSampler())
            return {"paths": samplers[-1]}

        testing.check_clean(testing.MethodCase("Uniform", settings, settings), tmp_path)
        assert "draws" not in vars(samplers[-1])


class TestOptimizerState:
    """What the optimizer keeps for each parameter is its own, or whose claim it is."""

    @staticmethod
    def _case(hook, claimed=()):
        class Wrong(SupernetCallback):
            claims = frozenset(claimed)

        def change(self, state, optimizer):
            optimizer.state.clear()

        setattr(Wrong, hook, change)
        return _case(Wrong)

    @pytest.mark.parametrize("hook", ["on_before_update", "on_after_update"])
    def test_it_is_not_set_without_a_claim(self, hook, tmp_path):
        with pytest.raises(AssertionError, match=r"Wrong sets `momentum_buffer` .* without a claim on it"):
            testing.check_clean(self._case(hook), tmp_path)

    @pytest.mark.parametrize("claim", ["momentum", "momentum_buffer"])
    def test_what_is_claimed_may_be_set(self, claim, tmp_path):
        testing.check_clean(self._case("on_after_update", (claim,)), tmp_path)
