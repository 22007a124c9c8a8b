"""Which of two metrics is better; NaN is worse than everything."""

from __future__ import annotations

import math
from collections.abc import Mapping


def quality(value: float, mode: str = "max") -> float:
    """Return a number that is larger for a better metric.

    Args:
        value: The metric.
        mode: ``'max'`` where larger metrics are better, ``'min'`` where smaller ones are.

    Returns:
        The value, negated for ``'min'``; minus infinity for NaN, with which no order would be one.

    Example:
        >>> max([0.7, float('nan'), 0.5], key=lambda loss: quality(loss, 'min'))
        0.5
    """
    if math.isnan(value):
        return -math.inf
    return value if mode == "max" else -value


def usual_quality(metrics: Mapping[str, float]) -> float:
    """Rank by accuracy where one was logged, else by the validation loss.

    Example:
        >>> usual_quality({'val_loss': 2.0, 'val_acc': 0.3}), usual_quality({'val_loss': 2.0})
        (0.3, -2.0)
    """
    for name, value in metrics.items():
        if "acc" in name:
            return quality(value)
    return quality(metrics.get("val_loss", math.nan), "min")
