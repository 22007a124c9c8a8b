"""Agreement of gradients between groups: by slow loops, by all permutations, and where nothing differs."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.functional import (
    disagreement,
    disagreement_p_value,
    within_and_between,
)


def gram_of(vectors):
    return vectors @ vectors.T


def slow_difference(vectors, groups):
    """Average inner products pair by pair."""
    within, between = [], []
    for i in range(len(vectors)):
        for j in range(i):
            product = sum(float(a) * float(b) for a, b in zip(vectors[i], vectors[j], strict=True))
            (within if groups[i] == groups[j] else between).append(product)
    return sum(within) / len(within), sum(between) / len(between)


@pytest.mark.parametrize(("groups", "parts"), [(2, 2), (3, 4), (5, 2)])
def test_averages_equal_a_loop_over_pairs(groups, parts):
    vectors = np.random.default_rng(0).normal(size=(groups * parts, 7)) + 1.0
    expected = slow_difference(vectors, [k // parts for k in range(groups * parts)])
    assert within_and_between(gram_of(vectors), groups) == pytest.approx(expected)
    assert disagreement([gram_of(vectors)], groups) == pytest.approx(1 - expected[1] / expected[0])


def test_several_matrices_weigh_by_their_gradients():
    small, large = np.array([1.0, 0, 1, 0, 1, 0, 1, 0]), np.array([1.0, 0, 1, 0, 0, 1, 0, 1])
    grams = [gram_of(small.reshape(4, 2)), gram_of(3 * large.reshape(4, 2))]
    # Within: 1 and 9; between: 1 and 0.
    assert disagreement(grams, 2) == pytest.approx(1 - 1 / 10)


def test_the_noise_of_the_parts_does_not_count():
    """Means with much noise: on average the disagreement's two parts are those of the true means."""
    rng = np.random.default_rng(1)
    true = np.repeat(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), 2, axis=0)
    found = [within_and_between(gram_of(true + rng.normal(size=true.shape)), 3) for _ in range(4000)]
    assert np.mean(found, axis=0) == pytest.approx([1.0, -1 / 3], abs=0.05)


def test_groups_whose_gradients_cancel_reach_their_share():
    """At a compromise the groups' mean gradients add up to zero: n / (n - 1) for n groups."""
    for groups in (2, 3, 5):
        mean = np.random.default_rng(groups).normal(size=(groups, 6))
        vectors = np.repeat(mean - mean.mean(axis=0), 2, axis=0)
        assert disagreement([gram_of(vectors)], groups) == pytest.approx(groups / (groups - 1))


def test_p_value_equals_that_of_all_permutations():
    vectors = np.random.default_rng(5).normal(size=(6, 3)) + np.repeat(np.eye(3), 2, axis=0)
    labels = [0, 0, 1, 1, 2, 2]
    observed = np.subtract(*slow_difference(vectors, labels))
    others = [np.subtract(*slow_difference(vectors[list(order)], labels)) for order in permutations(range(6))]
    exact = np.mean([other >= observed - 1e-12 for other in others])
    found = disagreement_p_value([gram_of(vectors)], 3, np.random.default_rng(0), permutations=20_000)
    assert 0.05 < exact < 0.95 and found == pytest.approx(exact, abs=0.015)


def test_p_values_are_uniform_where_nothing_differs():
    rng = np.random.default_rng(2)
    values = []
    for _ in range(400):
        common = rng.normal(size=5)
        grams = [gram_of(common + rng.normal(size=(12, 5))) for _ in range(2)]
        values.append(disagreement_p_value(grams, 3, rng, permutations=99))
    # Binomial: 400 trials of probability 0.1 leave 0.055 ... 0.155 once in ten thousand.
    assert 0.055 < np.mean(np.array(values) <= 0.1) < 0.155
    assert np.mean(values) == pytest.approx(0.5, abs=0.06)


def test_differing_groups_are_found():
    rng = np.random.default_rng(3)
    vectors = np.repeat(rng.normal(size=(3, 50)), 4, axis=0) + rng.normal(size=(12, 50))
    assert disagreement_p_value([gram_of(vectors)], 3, rng) == pytest.approx(0.001)


def test_without_any_signal():
    assert disagreement_p_value([], 3, np.random.default_rng(0)) == 1.0
    assert np.isnan(disagreement([], 3)) and np.isnan(disagreement([np.zeros((4, 4))], 2))
    assert disagreement_p_value([np.ones((4, 4))], 2, np.random.default_rng(0)) == 1.0


@pytest.mark.parametrize(("shape", "groups"), [((4, 4), 1), ((4, 4), 4), ((5, 5), 2), ((4, 3), 2)])
def test_refusals(shape, groups):
    with pytest.raises(ConfigurationError, match="expected to be square, with at least 2 parts"):
        within_and_between(np.zeros(shape), groups)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    gram = np.eye(4)
    gram[0, 1] = value
    for function in (
        lambda: within_and_between(gram, 2),
        lambda: disagreement([np.eye(4), gram], 2),
        lambda: disagreement_p_value([np.eye(4), gram], 2, np.random.default_rng(0)),
    ):
        with pytest.raises(DataError, match="`gram` is expected to be finite, but got NaN or inf"):
            function()
