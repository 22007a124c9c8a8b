"""The min-cut against a slow search over all labelings; the similarity against scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.functional.graph_split import gradient_similarity, min_cut


def slow_best(weights: np.ndarray, balanced: bool) -> float:
    """Try every 0/1 label of every node."""
    n, costs = len(weights), []
    for labels in product((0, 1), repeat=n):
        ones = sum(labels)
        if ones in (0, n) or (balanced and abs(2 * ones - n) > 1):
            continue
        costs.append(sum(weights[i, j] for i in range(n) for j in range(i) if labels[i] != labels[j]))
    return min(costs)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 8])
def test_no_split_is_cheaper(n: int, balanced: bool) -> None:
    rng = np.random.default_rng(n)
    for _ in range(5):
        upper = np.triu(rng.uniform(-1, 1, (n, n)), 1)
        weights = upper + upper.T
        cut = min_cut(weights, balanced)
        first, second = cut.groups
        assert sorted(first + second) == list(range(n)) and first and second and first[0] == 0
        assert not balanced or abs(len(first) - len(second)) <= 1
        assert cut.cost == pytest.approx(sum(weights[i, j] for i in first for j in second))
        assert cut.cost == pytest.approx(slow_best(weights, balanced))
        assert cut.mean == pytest.approx(cut.cost / (len(first) * len(second)))


def test_two_cliques_are_separated_and_balance_can_be_dropped() -> None:
    weights = np.full((5, 5), -0.5)
    weights[:4, :4] = 0.9
    assert min_cut(weights, balanced=False).groups == ((0, 1, 2, 3), (4,))
    first, second = min_cut(weights).groups
    assert {len(first), len(second)} == {2, 3}


def test_similarity_is_one_minus_the_cosine_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(3, 4, generator=generator) for _ in range(4)]
    similarity = gradient_similarity(gradients)
    for i, first in enumerate(gradients):
        for j, second in enumerate(gradients):
            expected = 1 - cosine(first.flatten().double().numpy(), second.flatten().double().numpy())
            assert similarity[i, j] == pytest.approx(expected, abs=1e-12)


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match=r"other than zero, but got others at \[1\]"):
        gradient_similarity([torch.ones(2), torch.zeros(2)])
    with pytest.raises(ConfigurationError, match=r"symmetric matrix .* got shape \(1, 1\)"):
        min_cut([[1.0]])
    with pytest.raises(ConfigurationError, match="symmetric matrix"):
        min_cut([[1.0, 0.2], [0.3, 1.0]])
    with pytest.raises(ConfigurationError, match="symmetric matrix"):
        min_cut([[1.0, float("nan")], [float("nan"), 1.0]])
    with pytest.raises(ConfigurationError, match="got 30 nodes"):
        min_cut(np.ones((30, 30)))
