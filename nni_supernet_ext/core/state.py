"""The published state of the training step, for slots, callbacks and the user's own hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nni_supernet_ext.core.draw import Draw


@dataclass(slots=True)
class StepState:
    """Where the training stands. One object for the whole run, updated in place.

    Attributes:
        iteration: Index of the current batch over the whole training, from 0.
        total_iterations: Number of batches of the whole training, or None where unknown.
        epoch: Index of the current epoch, from 0.
        draws: Draws of the current step.
        index: Position in ``draws`` of the draw in work.
        pending: Draws whose gradients the next optimizer step applies.
        scales: Factor on each draw's loss; starts as the draws' weights, callbacks may multiply.
        gradient_scale: Typical size of ``scales`` against the plain step. Thresholds in units of the
            gradient (clipping, weight decay) are multiplied by it.
        loss: Loss of the last draw (detached, on the device), before scaling.
        batch: The current batch, on the device.
        batch_idx: Its index in the epoch.
        task_loss: Runs the evaluator's own training step on the batch and returns its loss.
        learning_rate: Rate of the first parameter group in the last optimizer step.

    Example:
        What a slot or a callback reads of it:

        >>> state = StepState(iteration=25, total_iterations=100, draws=[Draw({'op': 'conv'}, role='largest')])
        >>> state.iteration / state.total_iterations, state.draw.role
        (0.25, 'largest')
    """

    iteration: int = 0
    total_iterations: int | None = None
    epoch: int = 0
    draws: Sequence[Draw] = ()
    index: int = 0
    pending: Sequence[Draw] = ()
    scales: list[float] = field(default_factory=list)
    gradient_scale: float = 1.0
    loss: Tensor | None = None
    batch: Any = None
    batch_idx: int = 0
    task_loss: Callable[[], Tensor] = field(default=lambda: _no_step())
    learning_rate: float | Tensor | None = None

    @property
    def draw(self) -> Draw:
        """The draw in work."""
        return self.draws[self.index]


def _no_step() -> Tensor:
    raise RuntimeError("`task_loss` is available only inside a training step.")
