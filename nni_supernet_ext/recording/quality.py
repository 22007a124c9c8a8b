"""Which of two values of a metric is better; NaN is worse than everything."""

from __future__ import annotations

import math


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
