"""What a search remembers of a subnet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nni_supernet_ext.errors import TrainingDivergedError
from nni_supernet_ext.strategies.quality import quality


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


def best_evaluated(history: Sequence[EvaluatedSubnet], metric: str, mode: str) -> EvaluatedSubnet:
    """Return the best of evaluated subnets, the first of equally good ones.

    Args:
        history: Evaluated subnets, at least one.
        metric: Metric to compare.
        mode: ``'max'`` or ``'min'``.

    Returns:
        The best.

    Raises:
        TrainingDivergedError: All are NaN, or infinitely bad: there is nothing to rank.

    Example:
        >>> history = [EvaluatedSubnet({'width': w}, {'val_acc': w / 10}, w, None) for w in (4, 8)]
        >>> best_evaluated(history, 'val_acc', 'max').sample
        {'width': 8}
    """
    best = max(history, key=lambda subnet: quality(subnet.metrics[metric], mode))
    if quality(best.metrics[metric], mode) == -math.inf:
        raise TrainingDivergedError(
            f"Metric {metric!r} is expected to be finite for some subnet, but got {best.metrics[metric]} for all "
            f"{len(history)} evaluated. Check the supernet's weights, the validation data and what "
            "`validation_step` logs."
        )
    return best
