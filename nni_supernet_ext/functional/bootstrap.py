"""Intervals around a ranking metric: what it owes to the chosen subnets and to the training's seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional._selection import check_integer
from nni_supernet_ext.functional._vectors import FloatVector, VectorLike, as_subnets

__all__ = ["bootstrap_interval"]

Metric: TypeAlias = Callable[[FloatVector, FloatVector], float]

_OVER = ("subnets", "seeds", "both")


def bootstrap_interval(
    predicted: VectorLike | Any,
    actual: VectorLike,
    metric: Metric,
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    over: str = "subnets",
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a metric over subnets, over seeds of the training, or both.

    Draws ``n`` times as many subnets (and seeds) as there are, with replacement, and takes the quantiles of the
    metric's values; with several seeds a value is the mean of the drawn seeds' metrics. Over subnets it tells how
    much the metric owes to which subnets were evaluated, and nothing about the noise of training; over seeds the
    reverse. Draws for which the metric is NaN do not count.

    Args:
        predicted: Predicted accuracies, shape (size,); or (seeds, size), one row for each trained supernet.
        actual: True accuracies, shape (size,).
        metric: Called as ``metric(predicted, actual)``; bind further arguments with ``functools.partial``.
        n: Number of draws, default 1000.
        level: Share of the draws within the interval, in (0, 1), default 0.95.
        seed: Seed of the draws, default 0.
        over: What is drawn: ``'subnets'`` (default), ``'seeds'``, or ``'both'``, each independently.

    Returns:
        Lower and upper end; both NaN if the metric is NaN for every draw. Over few seeds the interval is too
        narrow: of 3 seeds no draw leaves the range of their own values.

    Raises:
        ConfigurationError: If the lengths differ or are below 2; ``n``, ``level`` or ``over`` is out of range; or
            seeds are to be drawn from fewer than 2 rows.
        DataError: If an argument contains NaN.

    Example:
        >>> from nni_supernet_ext.functional import kendall_tau
        >>> low, high = bootstrap_interval([1, 2, 3, 4, 5], [1, 3, 2, 5, 4], kendall_tau, n=100)
        >>> low <= kendall_tau([1, 2, 3, 4, 5], [1, 3, 2, 5, 4]) <= high
        True
        >>> bootstrap_interval([[1, 2, 3], [1, 3, 2]], [1, 2, 3], kendall_tau, over='seeds')
        (0.333..., 1.0)

    Reference:
        Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 1979.
    """
    check_integer("n", n)
    if n < 1 or not 0 < level < 1:
        raise ConfigurationError(
            f"Arguments `n` and `level` are expected to be at least 1 and within (0, 1), but got {n} and "
            f"{level}. Use 1000 and 0.95."
        )
    rows = _rows(predicted, over)
    pairs = [as_subnets(row, actual) for row in rows]
    scores, truth = np.stack([row for row, _ in pairs]), pairs[0][1]
    values = np.fromiter(_values(scores, truth, metric, n, np.random.default_rng(seed), over), dtype=float)
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _rows(predicted: Any, over: str) -> list[Any]:
    """Return one vector for each seed."""
    if over not in _OVER:
        raise ConfigurationError(
            f"Argument `over` is expected to be one of {_OVER}, but got {over!r}. Use 'subnets' with one training."
        )
    shape = _shape(predicted)
    rows = list(predicted) if len(shape) == 2 and shape[0] > 0 else [predicted]
    if over != "subnets" and len(rows) < 2:
        raise ConfigurationError(
            f"Argument `predicted` is expected to have the shape (seeds, size) with at least 2 seeds, but got "
            f"{shape}. Train with more seeds, or use over='subnets'."
        )
    return rows


def _shape(predicted: Any) -> tuple[int, ...]:
    if isinstance(predicted, torch.Tensor):
        return tuple(predicted.shape)
    try:
        return tuple(np.shape(predicted))
    except ValueError:
        raise ConfigurationError(
            "Argument `predicted` is expected to have the shape (size,) or (seeds, size), but got rows of "
            "different lengths. Give every seed's predictions of the same subnets."
        ) from None


def _values(
    scores: FloatVector, truth: FloatVector, metric: Metric, n: int, rng: np.random.Generator, over: str
) -> Iterator[float]:
    seeds, size = scores.shape
    whole = [metric(row, truth) for row in scores] if over == "seeds" else []
    for _ in range(n):
        rows = np.arange(seeds) if over == "subnets" else np.asarray(rng.integers(seeds, size=seeds))
        if over == "seeds":
            yield float(np.mean([whole[row] for row in rows]))
            continue
        chosen = rng.integers(size, size=size)
        drawn, times = np.unique(rows, return_counts=True)  # a metric is computed once for each distinct seed
        each = [metric(scores[row][chosen], truth[chosen]) for row in drawn]
        yield float(np.average(each, weights=times))
