"""The evaluator's own loss."""

from __future__ import annotations

from torch import Tensor

from nni_supernet_ext.core.draw import Draw
from nni_supernet_ext.core.slots import Objective
from nni_supernet_ext.core.state import StepState


class TaskLoss(Objective):
    """Train every draw on the loss of the evaluator's ``training_step``.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(objective=TaskLoss())

    Reference:
        Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020, Eq. 7.
    """

    def loss(self, draw: Draw, state: StepState) -> Tensor:
        """Return the evaluator's training loss on the step's batch."""
        return state.task_loss()
