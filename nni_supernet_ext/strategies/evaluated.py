"""What a search remembers of a subnet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EvaluatedSubnet:
    """A subnet that the search has evaluated.

    Attributes:
        sample: Architecture.
        metrics: What the evaluator's ``validation_step`` logged, averaged over the validation data.
        parameters: Number of parameters of the subnet.
        flops: Multiply-adds per example, or None where FLOPs were not counted.

    Example:
        >>> first = EvaluatedSubnet({'op': 'conv', 'width': 4}, {'val_acc': 0.4}, parameters=310, flops=None)
        >>> second = EvaluatedSubnet({'op': 'skip', 'width': 8}, {'val_acc': 0.5}, parameters=322, flops=None)
        >>> max([first, second], key=lambda subnet: subnet.metrics['val_acc']).sample  # of a search's `history`
        {'op': 'skip', 'width': 8}
    """

    sample: dict[str, Any]
    metrics: dict[str, float]
    parameters: float
    flops: float | None
