"""Evolutionary operators and Pareto front: against slow definitions and expected frequencies."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nni_supernet_ext.errors import ConfigurationError, DataError, SpaceError
from nni_supernet_ext.functional import crossover, mutate, pareto_front

SPACE = {"op": ["conv", "pool", "skip"], "width": [8, 16], "inputs": [0, 1, 2, 3], "kernel": [[1, 1], [3, 3]]}
SAMPLE = {"op": "pool", "width": 8, "inputs": [1, 3], "kernel": [3, 3]}


def test_probability_zero_copies() -> None:
    child = mutate(SAMPLE, SPACE, 0.0, np.random.default_rng(0))
    assert child == SAMPLE
    assert child["inputs"] is not SAMPLE["inputs"]
    assert child["kernel"] is not SAMPLE["kernel"]


def test_drawn_values_are_candidates_and_parents_stay() -> None:
    rng, space, sample = np.random.default_rng(0), copy.deepcopy(SPACE), copy.deepcopy(SAMPLE)
    for _ in range(50):
        child = mutate(sample, space, 1.0, rng)
        assert child["op"] in SPACE["op"]
        assert type(child["width"]) is int
        assert child["kernel"] in SPACE["kernel"]
        child["kernel"].append("changed by the caller")
        assert len(set(child["inputs"])) == 2
        assert child["inputs"] == sorted(child["inputs"])
    assert (space, sample) == (SPACE, SAMPLE)


def test_frequencies() -> None:
    rng, trials, probability = np.random.default_rng(0), 20_000, 0.3
    children = [mutate(SAMPLE, SPACE, probability, rng) for _ in range(trials)]
    # A redraw from 3 candidates hits each with 1/3, the old one included.
    counts = Counter(child["op"] for child in children)
    assert counts["conv"] / trials == pytest.approx(probability / 3, abs=0.01)
    assert counts["pool"] / trials == pytest.approx(1 - probability * 2 / 3, abs=0.01)
    # A redraw of 2 out of 4 hits each of the 6 pairs with 1/6.
    pairs = Counter(tuple(child["inputs"]) for child in children)
    assert len(pairs) == 6
    assert pairs[0, 1] / trials == pytest.approx(probability / 6, abs=0.01)
    # Labels are drawn independently.
    both = sum(child["op"] != "pool" and child["width"] != 8 for child in children)
    assert both / trials == pytest.approx(probability**2 * 2 / 3 / 2, abs=0.01)


def test_crossover_frequencies_and_copies() -> None:
    rng, a, b = np.random.default_rng(0), {"x": 0, "y": [0]}, {"y": [1], "x": 1}
    children = [crossover(a, b, rng) for _ in range(10_000)]
    counts = Counter((child["x"], child["y"][0]) for child in children)
    assert set(counts) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert all(count / 10_000 == pytest.approx(0.25, abs=0.02) for count in counts.values())
    children[0]["y"].append(2)
    assert (a["y"], b["y"]) == ([0], [1])


def test_seed_decides_and_label_order_does_not() -> None:
    reordered = dict(reversed(SAMPLE.items()))
    first = [mutate(SAMPLE, SPACE, 0.5, np.random.default_rng(seed)) for seed in range(20)]
    assert first == [mutate(reordered, SPACE, 0.5, np.random.default_rng(seed)) for seed in range(20)]
    assert len({str(child) for child in first}) > 5
    other = mutate(SAMPLE, SPACE, 1.0, np.random.default_rng(99))
    assert crossover(SAMPLE, other, np.random.default_rng(1)) == crossover(
        SAMPLE, dict(reversed(other.items())), np.random.default_rng(1)
    )


@pytest.mark.parametrize(
    ("sample", "probability", "error", "match"),
    [
        (SAMPLE, 1.5, ConfigurationError, r"`probability` is expected to be within \[0, 1\], but got 1.5"),
        (SAMPLE, float("nan"), ConfigurationError, "`probability` is expected .* but got nan"),
        ({**SAMPLE, "extra": 1}, 0.1, SpaceError, "same labels, but extra occur"),
        (
            {**SAMPLE, "width": 32},
            0.1,
            SpaceError,
            r"one or several of \[8, 16\] for label 'width', but got 32",
        ),
        ({**SAMPLE, "inputs": [0, 9]}, 0.1, SpaceError, r"for label 'inputs', but got \[0, 9\]"),
    ],
)
def test_mutate_errors(sample: dict, probability: float, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        mutate(sample, SPACE, probability, np.random.default_rng(0))


def test_crossover_errors() -> None:
    with pytest.raises(SpaceError, match="`a` and `b` are expected to have the same labels, but y occur"):
        crossover({"x": 0}, {"x": 0, "y": 1}, np.random.default_rng(0))


few = st.integers(0, 6)  # few distinct numbers, hence many ties


@given(st.lists(st.tuples(few | st.floats(-5, 5), few | st.just(float("inf"))), max_size=25))
def test_pareto_front_equals_definition(points: list[tuple[float, float]]) -> None:
    def dominates(p: tuple[float, float], q: tuple[float, float]) -> bool:
        return p[0] <= q[0] and p[1] >= q[1] and p != q

    expected = [i for i, q in enumerate(points) if not any(dominates(p, q) for p in points)]
    front = pareto_front([p[0] for p in points], [p[1] for p in points])
    assert sorted(front) == expected
    assert front == sorted(expected, key=lambda i: (points[i][0], i))
    assert all(type(index) is int for index in front)


def test_pareto_front_keeps_duplicates_and_works_on_arrays() -> None:
    assert pareto_front(np.array([2, 1, 1, 1]), np.array([5.0, 5.0, 5.0, 4.0])) == [1, 2]


def test_pareto_front_errors() -> None:
    with pytest.raises(ConfigurationError, match="`costs` and `values` are expected to have the same length"):
        pareto_front([1.0], [1.0, 2.0])
    with pytest.raises(DataError, match="`values` is expected to be free of NaN, but got 1 NaN among 2 values"):
        pareto_front([1.0, 2.0], [float("nan"), 2.0])


@pytest.mark.parametrize("value", [[0, 0], [0, 0, 1, 2]])
def test_mutate_refuses_a_candidate_chosen_twice(value: list) -> None:
    with pytest.raises(SpaceError, match=r"for label 'skip', but got \[0, 0.* and each candidate once"):
        mutate({"skip": value}, {"skip": [0, 1, 2]}, 1.0, np.random.default_rng(0))
