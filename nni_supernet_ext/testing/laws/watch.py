"""A callback that sees what a method does to the optimizer and the model during a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from nni_supernet_ext.core.callback import SupernetCallback
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.testing.laws.conditions import Conditions, changed_entries, entries, optimizer_hooks
from nni_supernet_ext.testing.laws.draw_watch import DrawWatch
from nni_supernet_ext.testing.laws.module_settings import held_tensors
from nni_supernet_ext.testing.laws.state_watch import OptimizerStateWatch
from nni_supernet_ext.weights.shared import SharedWeights

_OWNERS = {"betas": {"momentum"}, "initial_lr": {"lr"}, "weight_decay": {"weight_decay", "lr"}}
"""Which claims allow an entry to be set, where it is not the entry's own name."""


class Watch(SupernetCallback):
    """Keep the state before the training, and gather what is set without a claim. Give it as the last callback.

    Attributes:
        undeclared: Entries of parameter groups that were in force changed, and of the optimizer's state that
            were set between its steps, though nobody claims them: the entry -> what it was and became.
        draws: What the draws of a step became after the path sampler had returned them.
    """

    def __init__(self) -> None:
        self.undeclared: dict[str, str] = {}
        self.draws = DrawWatch()
        self._state: OptimizerStateWatch | None = None
        self._conditions: Conditions | None = None
        self._optimizer: Optimizer | None = None
        self._allowed: set[str] = set()

    def problems(self, plan: Plan) -> Iterable[str]:
        """Look at everything in the rounds of checks: no part has been arranged, later prepared, by then."""
        if plan.optimizer is None:
            self._conditions = Conditions([plan.supernet.model, plan.training_module])
        else:
            self._optimizer = plan.optimizer
            self._entries, self._hooks = entries(plan.optimizer), optimizer_hooks(plan.optimizer)
            self._allowed = {claim for part in plan.components() for claim in getattr(part, "claims", ())}
            self._owns_state = "momentum" in self._allowed or type(plan.weights) is not SharedWeights
            if plan.schedulers:
                self._allowed |= {"lr", "momentum"}
            self._tensors = held_tensors(plan.supernet.model)
        return ()

    def prepare(self, plan: Plan) -> None:
        """Watch draws and optimizer from now on."""
        assert self._optimizer is not None
        self.draws.attach(plan.paths)
        # A weight store gives the copies it makes a state.
        if not self._owns_state:
            self._state = OptimizerStateWatch(self._optimizer)

    def finish(self) -> None:
        """Leave sampler and optimizer as they were."""
        self.draws.detach()
        if self._state is not None:
            self._state.detach()

    def on_draws(self, state: StepState) -> None:
        """Compare the draws; the hooks of all others have run, here and below."""
        self.draws.compare(state, "on_draws")

    def on_after_draw(self, state: StepState) -> None:
        """Compare the draws."""
        self.draws.compare(state, "on_after_draw")

    def on_after_update(self, state: StepState, optimizer: Optimizer) -> None:
        """Compare the draws."""
        self.draws.compare(state, "on_after_update")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Compare the optimizer's state a last time."""
        self._compare_state()

    def on_before_update(self, state: StepState, optimizer: Optimizer) -> None:
        """Compare draws and what is in force for this very step."""
        self.draws.compare(state, "on_before_update")
        self._compare_state()
        for entry, values in changed_entries(self._entries, entries(optimizer)).items():
            if not _OWNERS.get(entry, {entry}) & self._allowed:
                self.undeclared.setdefault(entry, values)

    def _compare_state(self) -> None:
        changes = {} if self._state is None else self._state.changes()
        for entry, values in changes.items():
            if entry not in self._allowed:
                self.undeclared.setdefault(entry, values)

    def left_behind(self, *modules: Any) -> list[str]:
        """Return what differs from the state before the training, in words; the supernet's model comes first."""
        assert self._conditions is not None and self._optimizer is not None
        left = list(self._conditions.changes(modules))
        tensors = self._tensors ^ held_tensors(modules[0])
        left += [f"parameters or buffers added or removed: {sorted(tensors)}"] if tensors else []
        hooks = optimizer_hooks(self._optimizer)
        left += [f"hooks on {name}" for name, found in hooks.items() if found - self._hooks.get(name, set())]
        changed = changed_entries(self._entries, entries(self._optimizer))
        return left + [f"`{entry}` of the optimizer changed: {values}" for entry, values in changed.items()]
