"""What the subnets predicted best are truly worth, which is what a search gets.

In every function ``predicted`` and ``actual`` hold one number per subnet, in the same order, higher being
better; lists, arrays and tensors of shape (n,), n >= 2, are accepted. NaN raises DataError, and different
lengths raise ConfigurationError.

Ties: where a selection by ``predicted`` cuts through equal predictions, the result is the expectation over
breaking those ties at random, so it depends on no order and a constant predictor scores as a random one does.
The true top contains every subnet that is at least as good as its last one.
"""

from __future__ import annotations

import math

import numpy as np

from nni_supernet_ext.functional._selection import (
    at_least_as_good,
    check_count,
    expected_best,
    selection_chances,
    top_count,
)
from nni_supernet_ext.functional._vectors import FloatVector, VectorLike, as_subnets, is_constant

__all__ = ["best_of_top", "improvement", "precision_at_top", "regret", "removal_curve", "top_mean"]


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

    Reference:
        The standard precision at k of information retrieval, with the true top as what is relevant: Manning et
        al., "Introduction to Information Retrieval", 2008, section 8.4 (evaluation of ranked results).
    """
    scores, truth = as_subnets(predicted, actual)
    count = top_count(fraction, scores.size)
    return float(selection_chances(scores, count)[at_least_as_good(truth, count)].sum() / count)


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
    scores, truth = as_subnets(predicted, actual)
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

    Reference:
        The standard simple regret: Bubeck et al., "Pure Exploration in Multi-armed Bandits Problems", ALT 2009,
        where it is defined for the one option recommended.
    """
    scores, truth = as_subnets(predicted, actual)
    check_count("n", n, scores.size)
    return max(0.0, float(truth.max()) - expected_best(scores, truth, n))


def top_mean(predicted: VectorLike, actual: VectorLike, n: int) -> float:
    """Return the mean true accuracy of the ``n`` subnets predicted best.

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
        >>> top_mean([0.3, 0.2, 0.1], [80.0, 90.0, 95.0], n=2)
        85.0
    """
    scores, truth = as_subnets(predicted, actual)
    check_count("n", n, scores.size)
    return _mean_of_top(scores, truth, n)


def improvement(predicted: VectorLike, actual: VectorLike, n: int) -> float:
    """Return the mean true accuracy of the ``n`` subnets predicted best: 0 for the mean, 1 for the best.

    Args:
        predicted: Predicted accuracies, shape (size,).
        actual: True accuracies of a sample of the whole space, shape (size,).
        n: Number of subnets selected, in [1, size].

    Returns:
        Improvement, at most 1, negative if the selection is worse than the mean; NaN if ``actual`` is constant
        or its mean is infinite. Ties: see the module.

    Raises:
        ConfigurationError: If the lengths differ or are below 2, or ``n`` is out of range.
        DataError: If an argument contains NaN.

    Example:
        >>> improvement([0.3, 0.2, 0.1], [80.0, 90.0, 70.0], n=1)
        0.0
        >>> improvement([0.3, 0.2, 0.1], [80.0, 90.0, 70.0], n=2)
        0.5

    Reference:
        Laube and Zell, "Inter-choice dependent super-network weights", 2021, where rankings are compared by the
        improvement of the selected networks over the mean.
    """
    scores, truth = as_subnets(predicted, actual)
    check_count("n", n, scores.size)
    if is_constant(truth):
        return math.nan
    selected = _mean_of_top(scores, truth, n)
    mean = float(truth.mean())
    return (selected - mean) / (float(truth.max()) - mean)


def removal_curve(predicted: VectorLike, actual: VectorLike) -> FloatVector:
    """Return the mean true accuracy of what remains while the subnets predicted worst are removed, one by one.

    A useful predictor makes the curve rise, a random one leaves it level, one that fails at the top makes its
    end fall.

    Args:
        predicted: Predicted accuracies, shape (n,).
        actual: True accuracies, shape (n,), finite.

    Returns:
        Shape (n,): position k is the mean over the n - k subnets predicted best, so it starts with the mean of
        all and ends with the subnet predicted best. Ties: see the module.

    Raises:
        ConfigurationError: If the lengths differ or are below 2.
        DataError: If an argument contains NaN.

    Example:
        >>> removal_curve([0.3, 0.1, 0.2], [90.0, 60.0, 75.0]).tolist()
        [75.0, 82.5, 90.0]

    Reference:
        Laube and Zell, "Inter-choice dependent super-network weights", 2021, figure 4.
    """
    scores, truth = as_subnets(predicted, actual)
    _, group = np.unique(scores, return_inverse=True)
    # Removing ties at random removes, on average, their mean.
    expected = (np.bincount(group, truth) / np.bincount(group))[group]
    best_first = expected[np.argsort(-scores, kind="stable")]
    return (np.cumsum(best_first) / np.arange(1, truth.size + 1))[::-1].copy()


def _mean_of_top(scores: FloatVector, truth: FloatVector, count: int) -> float:
    chances = selection_chances(scores, count)
    # What cannot be selected does not count, even if it is infinite.
    possible = chances > 0.0
    return float(chances[possible] @ truth[possible]) / count
