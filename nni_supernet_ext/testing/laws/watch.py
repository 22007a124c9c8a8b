"""A callback that sees what a method does to the optimizer and the model during a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from nni_supernet_ext.core.callback import SupernetCallback
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.testing.laws.conditions import Conditions, changed_entries, entries, optimizer_hooks

_OWNERS = {"betas": {"momentum"}, "initial_lr": {"lr"}, "weight_decay": {"weight_decay", "lr"}}
"""Which claims allow an entry to be set, where it is not the entry's own name."""


class Watch(SupernetCallback):
    """Keep the state before the training, and gather what is set without a claim. Give it as the last callback.

    Attributes:
        undeclared: Entries of parameter groups that were in force changed, though nobody claims them: the entry
            -> its value before and then.
    """

    def __init__(self) -> None:
        self.undeclared: dict[str, str] = {}
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
            if plan.schedulers:
                self._allowed |= {"lr", "momentum"}
        return ()

    def on_before_update(self, state: StepState, optimizer: Optimizer) -> None:
        """Compare what is in force for this very step; the hooks of all others have run."""
        for entry, values in changed_entries(self._entries, entries(optimizer)).items():
            if not _OWNERS.get(entry, {entry}) & self._allowed:
                self.undeclared.setdefault(entry, values)

    def left_behind(self, *modules: Any) -> list[str]:
        """Return what differs from the state before the training, in words."""
        assert self._conditions is not None and self._optimizer is not None
        left = list(self._conditions.changes(modules))
        hooks = optimizer_hooks(self._optimizer)
        left += [f"hooks on {name}" for name, found in hooks.items() if found - self._hooks.get(name, set())]
        changed = changed_entries(self._entries, entries(self._optimizer))
        return left + [f"`{entry}` of the optimizer changed: {values}" for entry, values in changed.items()]
