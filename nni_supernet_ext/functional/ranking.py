"""Measure how well predicted accuracies of subnets rank their true accuracies.

In every function ``predicted`` and ``actual`` hold one number per subnet, in the same order, higher being
better; lists, arrays and tensors of shape (n,), n >= 2, are accepted. Infinite numbers are ranked like
others. NaN raises DataError, and different lengths raise ConfigurationError. What is undefined because an
argument is constant is NaN, without a warning.

Ties: where a selection by ``predicted`` cuts through equal predictions, the result is the expectation over
breaking those ties at random, so it depends on no order and a constant predictor scores as a random one does.
The true top contains every subnet that is at least as good as its last one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional._selection import (
    at_least_as_good,
    check_count,
    expected_best,
    selection_chances,
    top_count,
)
from nni_supernet_ext.functional._vectors import FloatVector, VectorLike, as_pair

__all__ = [
    "best_of_top",
    "bootstrap_interval",
    "improvement",
    "kendall_tau",
    "kendall_tau_top",
    "pearson_r",
    "precision_at_top",
    "regret",
    "spearman_rho",
]


def kendall_tau(predicted: VectorLike, actual: VectorLike) -> float:
    """Return Kendall's tau-b, the share of agreeing minus that of disagreeing pairs, corrected for ties.

    Args:
        predicted: Predicted accuracies, shape (n,).
        actual: True accuracies, shape (n,).

    Returns:
        Tau-b in [-1, 1], NaN if an argument is constant. Takes O(n log n).

    Raises:
        ConfigurationError: If the lengths differ or are below 2.
        DataError: If an argument contains NaN.

    Example:
        >>> kendall_tau([0.1, 0.2, 0.3], [70.0, 90.0, 80.0])
        0.333...

    Reference:
        Kendall, "The treatment of ties in ranking problems", Biometrika 1945.
    """
    return _kendall(*_subnets(predicted, actual))


def spearman_rho(predicted: VectorLike, actual: VectorLike) -> float:
    """Return Spearman's rank correlation, with mean ranks for ties.

    Args:
        predicted: Predicted accuracies, shape (n,).
        actual: True accuracies, shape (n,).

    Returns:
        Rho in [-1, 1], NaN if an argument is constant.

    Raises:
        ConfigurationError: If the lengths differ or are below 2.
        DataError: If an argument contains NaN.

    Example:
        >>> spearman_rho([0.1, 0.2, 0.3], [70.0, 90.0, 80.0])
        0.5

    Reference:
        Spearman, "The proof and measurement of association between two things", 1904.
    """
    from scipy import stats  # here, because it takes long to import

    scores, truth = _subnets(predicted, actual)
    if _is_constant(scores) or _is_constant(truth):
        return math.nan
    return float(stats.spearmanr(scores, truth).statistic)


def pearson_r(predicted: VectorLike, actual: VectorLike) -> float:
    """Return Pearson's linear correlation.

    Args:
        predicted: Predicted accuracies, shape (n,), finite.
        actual: True accuracies, shape (n,), finite.

    Returns:
        r in [-1, 1], NaN if an argument is constant.

    Raises:
        ConfigurationError: If the lengths differ or are below 2, or a number is infinite.
        DataError: If an argument contains NaN.

    Example:
        >>> round(pearson_r([0.1, 0.2, 0.3], [70.0, 90.0, 80.0]), 6)
        0.5
    """
    from scipy import stats  # here, because it takes long to import

    scores, truth = _subnets(predicted, actual)
    for name, vector in (("predicted", scores), ("actual", truth)):
        infinite = int(np.isinf(vector).sum())
        if infinite:
            raise ConfigurationError(
                f"Argument `{name}` is expected to be finite, but got {infinite} infinite numbers. "
                "Use `kendall_tau` or `spearman_rho`, or remove those subnets."
            )
    if _is_constant(scores) or _is_constant(truth):
        return math.nan
    return float(stats.pearsonr(scores, truth).statistic)


def precision_at_top(predicted: VectorLike, actual: VectorLike, fraction: float = 0.1) -> float:
    """Return the share of the predicted top that belongs to the true top.

    Args:
        predicted: Predicted accuracies, shape (n,).
        actual: True accuracies, shape (n,).
        fraction: Size of both tops as a fraction of n, in (0, 1], rounded up to whole subnets.

    Returns:
        Share in [0, 1]. Ties: see the module.

    Raises:
        ConfigurationError: If the lengths differ or are below 2, or ``fraction`` is out of range.
        DataError: If an argument contains NaN.

    Example:
        >>> precision_at_top([4, 3, 2, 1], [90.0, 70.0, 80.0, 60.0], fraction=0.5)
        0.5
    """
    scores, truth = _subnets(predicted, actual)
    count = top_count(fraction, scores.size)
    return float(selection_chances(scores, count)[at_least_as_good(truth, count)].sum() / count)


def kendall_tau_top(predicted: VectorLike, actual: VectorLike, fraction: float = 0.1) -> float:
    """Return Kendall's tau-b among the truly best subnets, the part of the ranking a search lives on.

    Args:
        predicted: Predicted accuracies, shape (n,).
        actual: True accuracies, shape (n,); the true top is selected by these.
        fraction: Size of the true top as a fraction of n, in (0, 1], rounded up to whole subnets.

    Returns:
        Tau-b in [-1, 1], NaN if an argument is constant within the true top. Ties: see the module.

    Raises:
        ConfigurationError: If the lengths differ or are below 2, ``fraction`` is out of range or selects
            fewer than 2 subnets.
        DataError: If an argument contains NaN.

    Example:
        >>> kendall_tau_top([1, 2, 4, 3], [60.0, 70.0, 80.0, 90.0], fraction=0.5)
        -1.0
    """
    scores, truth = _subnets(predicted, actual)
    top = at_least_as_good(truth, top_count(fraction, truth.size))
    if top.sum() < 2:
        raise ConfigurationError(
            f"Argument `fraction` is expected to select at least 2 of {truth.size} subnets, but got "
            f"{fraction}. Raise it or evaluate more subnets."
        )
    return _kendall(scores[top], truth[top])


def best_of_top(predicted: VectorLike, actual: VectorLike, n: int) -> float:
    """Return the best true accuracy among the ``n`` subnets predicted best.

    Args:
        predicted: Predicted accuracies, shape (size,).
        actual: True accuracies, shape (size,).
        n: Number of subnets selected, in [1, size].

    Returns:
        An accuracy in the unit of ``actual``. Ties: see the module.

    Raises:
        ConfigurationError: If the lengths differ or are below 2, or ``n`` is out of range.
        DataError: If an argument contains NaN.

    Example:
        >>> best_of_top([0.3, 0.2, 0.1], [80.0, 90.0, 95.0], n=2)
        90.0
    """
    scores, truth = _subnets(predicted, actual)
    check_count("n", n, scores.size)
    return expected_best(scores, truth, n)


def regret(predicted: VectorLike, actual: VectorLike, n: int = 1) -> float:
    """Return how much true accuracy is lost if the best of the ``n`` subnets predicted best is taken.

    Args:
        predicted: Predicted accuracies, shape (size,).
        actual: True accuracies, shape (size,).
        n: Number of subnets selected, in [1, size], default 1.

    Returns:
        Best true accuracy minus ``best_of_top``, at least 0, in the unit of ``actual``.

    Raises:
        ConfigurationError: If the lengths differ or are below 2, or ``n`` is out of range.
        DataError: If an argument contains NaN.

    Example:
        >>> regret([0.3, 0.2, 0.1], [80.0, 90.0, 95.0])
        15.0
    """
    scores, truth = _subnets(predicted, actual)
    check_count("n", n, scores.size)
    return max(0.0, float(truth.max()) - expected_best(scores, truth, n))


def improvement(predicted: VectorLike, actual: VectorLike, n: int) -> float:
    """Return the mean true accuracy of the ``n`` subnets predicted best: 0 for the mean, 1 for the best.

    Args:
        predicted: Predicted accuracies, shape (size,).
        actual: True accuracies of a sample of the whole space, shape (size,).
        n: Number of subnets selected, in [1, size].

    Returns:
        Improvement, at most 1, negative if the selection is worse than the mean; NaN if ``actual`` is
        constant.
        Ties: see the module.

    Raises:
        ConfigurationError: If the lengths differ or are below 2, or ``n`` is out of range.
        DataError: If an argument contains NaN.

    Example:
        >>> improvement([0.3, 0.2, 0.1], [80.0, 90.0, 70.0], n=1)
        0.0
        >>> improvement([0.3, 0.2, 0.1], [80.0, 90.0, 70.0], n=2)
        0.5

    Reference:
        Laube and Zell, "Inter-choice dependent super-network weights", 2021.
    """
    scores, truth = _subnets(predicted, actual)
    check_count("n", n, scores.size)
    if _is_constant(truth):
        return math.nan
    selected = float(selection_chances(scores, n) @ truth) / n
    mean = float(truth.mean())
    return (selected - mean) / (float(truth.max()) - mean)


def bootstrap_interval(
    predicted: VectorLike,
    actual: VectorLike,
    metric: Callable[[FloatVector, FloatVector], float],
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a metric over the subnets.

    Draws ``n`` times as many subnets as there are, with replacement, and takes the quantiles of the metric's
    values. It tells how much the metric owes to which subnets were evaluated, and nothing about the noise of
    training. Draws for which the metric is NaN do not count.

    Args:
        predicted: Predicted accuracies, shape (size,).
        actual: True accuracies, shape (size,).
        metric: Called as ``metric(predicted, actual)``; bind further arguments with ``functools.partial``.
        n: Number of draws, default 1000.
        level: Share of the draws within the interval, in (0, 1), default 0.95.
        seed: Seed of the draws, default 0.

    Returns:
        Lower and upper end; both NaN if the metric is NaN for every draw.

    Raises:
        ConfigurationError: If the lengths differ or are below 2, or ``n`` or ``level`` is out of range.
        DataError: If an argument contains NaN.

    Example:
        >>> low, high = bootstrap_interval([1, 2, 3, 4, 5], [1, 3, 2, 5, 4], kendall_tau, n=100)
        >>> low <= kendall_tau([1, 2, 3, 4, 5], [1, 3, 2, 5, 4]) <= high
        True

    Reference:
        Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 1979.
    """
    scores, truth = _subnets(predicted, actual)
    if n < 1 or not 0 < level < 1:
        raise ConfigurationError(
            f"Arguments `n` and `level` are expected to be at least 1 and within (0, 1), but got {n} and "
            f"{level}. Use 1000 and 0.95."
        )
    rng = np.random.default_rng(seed)
    draws = np.empty(n)
    for draw in range(n):
        chosen = rng.integers(scores.size, size=scores.size)
        draws[draw] = metric(scores[chosen], truth[chosen])
    defined = draws[~np.isnan(draws)]
    if defined.size == 0:
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _subnets(predicted: VectorLike, actual: VectorLike) -> tuple[FloatVector, FloatVector]:
    """Return the checked vectors."""
    return as_pair(("predicted", "actual"), predicted, actual, at_least=2)


def _kendall(scores: FloatVector, truth: FloatVector) -> float:
    """Return tau-b of two checked vectors."""
    from scipy import stats  # here, because it takes long to import

    return float(stats.kendalltau(scores, truth).statistic)


def _is_constant(vector: FloatVector) -> bool:
    """Tell whether all numbers are equal."""
    return bool((vector == vector[0]).all())
