"""How well predicted accuracies of subnets rank their true accuracies, as one number.

In every function ``predicted`` and ``actual`` hold one number per subnet, in the same order, higher being
better; lists, arrays and tensors of shape (n,), n >= 2, are accepted. Infinite numbers are ranked like
others. NaN raises DataError, and different lengths raise ConfigurationError. What is undefined because an
argument is constant is NaN, without a warning.
"""

from __future__ import annotations

import math

import numpy as np

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional._selection import at_least_as_good, top_count
from nni_supernet_ext.functional._vectors import FloatVector, VectorLike, as_subnets, is_constant

__all__ = ["kendall_tau", "kendall_tau_top", "pearson_r", "spearman_rho"]


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
    return _kendall(*as_subnets(predicted, actual))


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

    scores, truth = as_subnets(predicted, actual)
    if is_constant(scores) or is_constant(truth):
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

    scores, truth = as_subnets(predicted, actual)
    for name, vector in (("predicted", scores), ("actual", truth)):
        infinite = int(np.isinf(vector).sum())
        if infinite:
            raise ConfigurationError(
                f"Argument `{name}` is expected to be finite, but got {infinite} infinite numbers. "
                "Use `kendall_tau` or `spearman_rho`, or remove those subnets."
            )
    if is_constant(scores) or is_constant(truth):
        return math.nan
    return float(stats.pearsonr(scores, truth).statistic)


def kendall_tau_top(predicted: VectorLike, actual: VectorLike, fraction: float = 0.1) -> float:
    """Return Kendall's tau-b among the truly best subnets, the part of the ranking a search lives on.

    Args:
        predicted: Predicted accuracies, shape (n,).
        actual: True accuracies, shape (n,); the true top is selected by these.
        fraction: Size of the true top as a fraction of n, in (0, 1], rounded up to whole subnets.

    Returns:
        Tau-b in [-1, 1], NaN if an argument is constant within the true top. Subnets whose true accuracy ties with
            the last of the top belong to it too.

    Raises:
        ConfigurationError: If the lengths differ or are below 2, ``fraction`` is out of range or selects
            fewer than 2 subnets.
        DataError: If an argument contains NaN.

    Example:
        >>> kendall_tau_top([1, 2, 4, 3], [60.0, 70.0, 80.0, 90.0], fraction=0.5)
        -1.0

    Reference:
        The standard tau-b, on a part of the subnets: Kendall, "The treatment of ties in ranking problems",
        Biometrika 1945.
    """
    scores, truth = as_subnets(predicted, actual)
    top = at_least_as_good(truth, top_count(fraction, truth.size))
    if top.sum() < 2:
        raise ConfigurationError(
            f"Argument `fraction` is expected to select at least 2 of {truth.size} subnets, but got "
            f"{fraction}. Raise it or evaluate more subnets."
        )
    return _kendall(scores[top], truth[top])


def _kendall(scores: FloatVector, truth: FloatVector) -> float:
    """Return tau-b of two checked vectors."""
    from scipy import stats  # here, because it takes long to import

    return float(stats.kendalltau(scores, truth).statistic)
