"""When weights are split: after how many epochs, or at which share of the training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.errors import ConfigurationError

_NEVER = 2**62


class Milestones:
    """Tell how many milestones a training has passed, with one comparison of integers a step.

    Args:
        milestones: Epochs (all int) or shares of the training's iterations (all float), ascending.
    """

    def __init__(self, milestones: Sequence[float]) -> None:
        self.given = tuple(milestones)
        self.in_epochs = all(isinstance(value, int) for value in self.given)
        self._thresholds: list[int] = []
        self._next = _NEVER

    def start(self, plan: Plan) -> None:
        """Learn the length of the training; the first step after this looks at all milestones.

        Raises:
            ConfigurationError: The training has no known length, or ends before a milestone.
        """
        total = plan.total_iterations
        if not self.in_epochs:
            if total is None:
                raise ConfigurationError(
                    "The trainer is expected to have a known number of iterations for `milestones` as shares of "
                    "the training, but got none. Give milestones in epochs, or set `max_epochs` or `max_steps` and "
                    "use a loader with a length."
                )
            self._thresholds = [_whole(share * total) for share in self.given]
        else:
            self._thresholds = [int(epoch) for epoch in self.given]
            self._check_length(plan, total)
        self._next = -1

    def due(self, state: StepState) -> int | None:
        """Return how many milestones are passed, where that may have changed since the last step, else None."""
        clock = state.epoch if self.in_epochs else state.iteration
        if clock < self._next:
            return None
        passed = sum(clock >= threshold for threshold in self._thresholds)
        self._next = self._thresholds[passed] if passed < len(self._thresholds) else _NEVER
        return passed

    def _check_length(self, plan: Plan, total: int | None) -> None:
        per_epoch = plan.trainer.num_training_batches
        known = total is not None and per_epoch != math.inf
        if self._thresholds and known and self._thresholds[-1] * per_epoch >= total:
            raise ConfigurationError(_outside(self.given, f"{total} batches of which an epoch has {per_epoch}"))


def window_ends(first: float, last: float, window: float, total: int) -> list[int]:
    """Return the iterations at which windows end, from a first share of the training to a last one.

    Args:
        first: First share.
        last: Last share.
        window: Share between two of them.
        total: Iterations of the training.

    Returns:
        Ascending iterations, each once, none 0.
    """
    number = _whole((last - first) / window)
    steps = {_whole((first + k * window) * total) for k in range(number + 1)}
    return sorted(step for step in steps if step > 0)


def _whole(number: float) -> int:
    """Round down, but not what only floating point keeps below a whole number."""
    return math.floor(number + 1e-9)


def milestone_problems(milestones: Any, trainer: Any) -> Iterable[str]:
    """Yield what is wrong with milestones, as far as the trainer's settings tell.

    Args:
        milestones: The argument as given.
        trainer: Lightning trainer.
    """
    numbers = list(milestones) if isinstance(milestones, Sequence) and not isinstance(milestones, str) else None
    kinds = {type(value) for value in numbers or ()}
    if numbers is None or (not kinds <= {int} and not kinds <= {float}):
        yield (
            f"Argument `milestones` is expected to hold epochs (all int) or shares of the training (all float), "
            f"but got {milestones!r}. Use for example (0.6,), or 'auto'."
        )
        return
    if any(second <= first for first, second in pairwise(numbers)):
        yield f"Argument `milestones` is expected to ascend, but got {milestones!r}. Sort them, each once."
    if float in kinds and not all(0 < share < 1 for share in numbers):
        yield _outside(milestones, "shares within (0, 1)")
    epochs = trainer.max_epochs
    limit = epochs if isinstance(epochs, int) and epochs >= 0 else _NEVER
    if int in kinds and not all(0 <= epoch < limit for epoch in numbers):
        yield _outside(milestones, f"{epochs} epochs")


def _outside(milestones: Any, length: str) -> str:
    return (
        f"Argument `milestones` is expected to lie within the training, {length}, but got {milestones!r}. Choose "
        "earlier ones, for example at 60 % of the training."
    )
