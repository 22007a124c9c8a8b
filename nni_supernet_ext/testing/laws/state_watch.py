"""What is set in an optimizer's state between its own steps."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from nni_supernet_ext.testing.laws.conditions import same


class OptimizerStateWatch:
    """Copy the state after every step of an optimizer, and compare it before the next.

    Args:
        optimizer: The optimizer to watch; it gets a hook until :meth:`detach`.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._kept = _copied(optimizer)
        self._handle = optimizer.register_step_post_hook(self._keep)

    def changes(self) -> dict[str, str]:
        """Return what has been set since the last step: name of the entry -> for how many parameters."""
        now: dict[Tensor, dict[str, Any]] = dict(self._optimizer.state)
        counts: dict[str, int] = {}
        for parameter in {**self._kept, **now}:
            before, after = self._kept.get(parameter, {}), now.get(parameter, {})
            for entry in {**before, **after}:
                if entry not in before or entry not in after or not same(before[entry], after[entry]):
                    counts[entry] = counts.get(entry, 0) + 1
        return {entry: f"in its state of {n} parameters, between two steps" for entry, n in counts.items()}

    def detach(self) -> None:
        """Take the hook off."""
        self._handle.remove()

    def _keep(self, optimizer: Optimizer, *_: Any) -> None:
        self._kept = _copied(optimizer)


def _copied(optimizer: Optimizer) -> dict[Tensor, dict[str, Any]]:
    return {
        parameter: {
            entry: value.clone() if isinstance(value, Tensor) else value for entry, value in entries.items()
        }
        for parameter, entries in optimizer.state.items()
    }
