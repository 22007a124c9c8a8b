"""Do the gradients of one weight agree between groups of training steps, as far as their noise lets one tell?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nni_supernet_ext.errors import ConfigurationError, DataError

__all__ = ["disagreement", "disagreement_p_value", "within_and_between"]

Gram = NDArray[np.float64]
"""Inner products of mean gradients, shape ``(groups * parts, groups * parts)``, parts of a group side by side."""


def within_and_between(gram: Gram, groups: int) -> tuple[float, float]:
    """Average the inner products of mean gradients within groups, and between groups.

    The steps of each group are dealt out to parts, each with a mean gradient of its own. Different parts have
    independent noise, so both averages are free of its bias: within groups it is that of ``|mu_g|^2``, between
    groups that of ``<mu_g, mu_h>``, for the groups' true mean gradients ``mu``.

    Args:
        gram: Inner products, shape ``(groups * parts, groups * parts)``, parts of a group side by side.
        groups: Number of groups, at least 2, each with equally many parts, at least 2.

    Returns:
        Average within, average between.

    Raises:
        ConfigurationError: Sizes that do not fit.
        DataError: An entry that is NaN or infinite.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [0.2, 1.0]])
        >>> within, between = within_and_between(vectors @ vectors.T, groups=2)
        >>> within, round(between, 3)
        (1.0, 0.2)

    Reference:
        Ours; see the card of WeightSplitting.
    """
    _check(gram, groups)
    averages = _averages(gram[None], _same_group(len(gram), groups)[None])[0]
    return float(averages[0]), float(averages[1])


def disagreement(grams: Sequence[Gram], groups: int) -> float:
    """Return which share of the squared mean gradient is not common to the groups.

    ``1 - between / within``, both averaged over all matrices: 0 where groups have the same mean gradient, 1 where
    theirs are at right angles, more where they point against each other.

    Args:
        grams: A matrix for each set of weights; see :func:`within_and_between`.
        groups: Number of groups.

    Returns:
        The share; NaN where nothing within the groups stands out from the noise.

    Raises:
        ConfigurationError: Sizes that do not fit.
        DataError: An entry that is NaN or infinite.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [0.2, 1.0]])
        >>> round(disagreement([vectors @ vectors.T], groups=2), 3)
        0.8

    Reference:
        Ours; see the card of WeightSplitting.
    """
    pairs = np.array([within_and_between(gram, groups) for gram in grams]).reshape(-1, 2)
    within, between = pairs.sum(axis=0)
    return float(1.0 - between / within) if within > 0.0 else float("nan")


def disagreement_p_value(
    grams: Sequence[Gram], groups: int, rng: np.random.Generator, permutations: int = 999
) -> float:
    """Test whether gradients agree more within groups than between groups.

    A permutation test: where the groups have the same mean gradient, any other way to deal the parts out to groups
    is as likely. The statistic is the sum over matrices of the average within less the average between; each
    matrix is dealt out anew on its own.

    Args:
        grams: A matrix for each set of weights; see :func:`within_and_between`.
        groups: Number of groups.
        rng: Source of the permutations.
        permutations: How many.

    Returns:
        Probability of a difference at least as large where there is none; 1 without any matrix.

    Raises:
        ConfigurationError: Sizes that do not fit.
        DataError: An entry that is NaN or infinite.

    Example:
        >>> vectors = np.repeat(np.eye(3), 4, axis=0)
        >>> disagreement_p_value([vectors @ vectors.T], 3, np.random.default_rng(0))
        0.001

    Reference:
        Ours; see the card of WeightSplitting. That the observed deal counts as one of the permutations is standard:
        Phipson and Smyth, "Permutation P-values Should Never Be Zero", 2010.
    """
    observed, dealt = 0.0, np.zeros(permutations)
    for gram in grams:
        within, between = within_and_between(gram, groups)
        observed += within - between
        same = _same_group(len(gram), groups)
        orders = rng.permuted(np.tile(np.arange(len(gram)), (permutations, 1)), axis=1)
        averages = _averages(gram[None], same[orders[:, :, None], orders[:, None, :]])
        dealt += averages[:, 0] - averages[:, 1]
    # The margin keeps equal sums equal: the order of adding differs.
    margin = 1e-9 * (abs(observed) + float(np.abs(dealt).max(initial=0.0)))
    return float((1 + np.count_nonzero(dealt >= observed - margin)) / (1 + permutations))


def _same_group(size: int, groups: int) -> NDArray[np.bool_]:
    group = np.arange(size) // (size // groups)
    return np.asarray(group[:, None] == group[None, :])


def _averages(grams: Gram, same: NDArray[np.bool_]) -> Gram:
    """Average off-diagonal entries, shape ``(n, size, size)``, in the same group and in different ones."""
    apart = ~np.eye(grams.shape[-1], dtype=bool)
    within, between = same & apart, ~same
    columns = [(grams * mask).sum(axis=(1, 2)) / mask.sum(axis=(1, 2)) for mask in (within, between)]
    return np.stack(columns, axis=1)


def _check(gram: Gram, groups: int) -> None:
    size = len(gram)
    if groups < 2 or gram.shape != (size, size) or size % groups or size // groups < 2:
        raise ConfigurationError(
            f"Argument `gram` is expected to be square, with at least 2 parts for each of {groups} (at least 2) "
            f"groups, but got shape {gram.shape}. Give inner products of all parts of all groups."
        )
    if not np.isfinite(gram).all():
        raise DataError(
            "Argument `gram` is expected to be finite, but got NaN or inf. Leave out matrices of gradients that "
            "are not finite."
        )
