"""Split the candidates of a choice into two groups that agree on how to update shared weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nni_supernet_ext.errors import ConfigurationError, DataError

__all__ = ["Cut", "gradient_similarity", "min_cut"]

Matrix: TypeAlias = NDArray[np.float64]

_MOST_CUTS = 1_000_000


@dataclass(frozen=True)
class Cut:
    """Two groups of nodes of a complete weighted graph.

    Attributes:
        groups: Indices of the nodes of both groups, ascending; node 0 is in the first.
        cost: Sum of the weights of the edges between the groups.
        mean: The same divided by the number of these edges: comparable between graphs of different sizes.

    Example:
        >>> cut = min_cut([[0, 3, 1], [3, 0, 1], [1, 1, 0]], balanced=False)
        >>> cut
        Cut(groups=((0, 1), (2,)), cost=2.0, mean=1.0)
    """

    groups: tuple[tuple[int, ...], tuple[int, ...]]
    cost: float
    mean: float


def gradient_similarity(gradients: Sequence[Tensor]) -> Matrix:
    """Return the cosine similarity of every pair of gradients of the shared weights.

    Args:
        gradients: One gradient per candidate, all of the same shape; flattened before comparing.

    Returns:
        Symmetric matrix, shape (n, n), values in [-1, 1], ones on the diagonal. One minus it is the cosine
        distance.

    Raises:
        DataError: A gradient that is zero everywhere or not finite.

    Example:
        >>> import torch
        >>> gradient_similarity([torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([-2.0, 0.0])])
        array([[ 1.        ,  0.70710678, -1.        ],
               [ 0.70710678,  1.        , -0.70710678],
               [-1.        , -0.70710678,  1.        ]])

    Reference:
        Hu et al., "Generalizing Few-Shot NAS with Gradient Matching", ICLR 2022, the section on the gradient
        matching score.
    """
    rows = torch.stack([gradient.detach().reshape(-1) for gradient in gradients]).to("cpu", torch.float64)
    norms = rows.norm(dim=1, keepdim=True)
    bad = [i for i, norm in enumerate(norms.flatten().tolist()) if not 0 < norm < float("inf")]
    if bad:
        raise DataError(
            f"Argument `gradients` is expected to hold finite gradients other than zero, but got others at {bad}. "
            "Use more batches, or warm the supernet up first."
        )
    units = rows / norms
    similarity = (units @ units.T).clamp(-1.0, 1.0)
    similarity.fill_diagonal_(1.0)
    return similarity.numpy()


def min_cut(similarity: Matrix | Sequence[Sequence[float]], balanced: bool = True) -> Cut:
    """Return the split of a complete graph into two groups that cuts the least total weight.

    All splits are compared, so the result is exact for weights of any sign. Ties go to the split whose first
    group comes first in lexicographic order.

    Args:
        similarity: Symmetric weights, shape (n, n); the diagonal is not used.
        balanced: Whether both groups have n / 2 nodes, rounded down and up (default). Without it, a group may
            be a single node.

    Returns:
        The groups and the cost.

    Raises:
        ConfigurationError: Not a symmetric square matrix, fewer than two nodes, or too many splits to compare.

    Example:
        >>> cut = min_cut([[1, 0.9, 0.1, 0], [0.9, 1, 0, 0.1], [0.1, 0, 1, 0.8], [0, 0.1, 0.8, 1]])
        >>> cut.groups, round(cut.cost, 6), round(cut.mean, 6)
        (((0, 1), (2, 3)), 0.2, 0.05)

    Reference:
        Hu et al., "Generalizing Few-Shot NAS with Gradient Matching", ICLR 2022, the section on supernet
        partition as graph min-cut, with two groups of balanced size.
    """
    weights = _checked(similarity)
    n = len(weights)
    sizes = sorted({n // 2, n - n // 2}) if balanced else list(range(1, n))
    if sum(comb(n - 1, size - 1) for size in sizes) > _MOST_CUTS:
        raise ConfigurationError(
            f"Argument `similarity` is expected to have at most {_MOST_CUTS:,} splits to compare, but got {n} "
            "nodes. Give the groups of this choice yourself."
        )
    best: tuple[float, tuple[int, ...]] | None = None
    for size in sizes:
        for others in combinations(range(1, n), size - 1):
            first = (0, *others)
            cost = _cut_cost(weights, first)
            if best is None or (cost, first) < best:
                best = (cost, first)
    if best is None:  # n = 2 has one split, so this cannot be
        raise ConfigurationError("Argument `similarity` is expected to allow a split. Give two or more nodes.")
    cost, first = best
    second = tuple(i for i in range(n) if i not in first)
    return Cut((first, second), cost, cost / (len(first) * len(second)))


def _cut_cost(weights: Matrix, first: tuple[int, ...]) -> float:
    inside = np.zeros(len(weights), dtype=bool)
    inside[list(first)] = True
    return float(weights[inside][:, ~inside].sum())


def _checked(similarity: Any) -> Matrix:
    weights = np.asarray(similarity, dtype=np.float64)
    square = weights.ndim == 2 and weights.shape[0] == weights.shape[1] and len(weights) >= 2
    if not square or not np.allclose(weights, weights.T, equal_nan=False):
        raise ConfigurationError(
            "Argument `similarity` is expected to be a symmetric matrix of at least two nodes without NaN, but "
            f"got shape {weights.shape}. Give one row and column per candidate."
        )
    return weights
