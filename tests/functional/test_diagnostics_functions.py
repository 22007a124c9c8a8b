"""Cosines, deviations and convergence against plain arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.functional import (
    complexity_convergence,
    convergence_step,
    gradient_cosine,
    gradient_deviation,
    hamming_distance,
    pearson_r,
)


def test_hamming_distance() -> None:
    first = {"a": 1, "b": "x", "c": [0, 1]}
    assert hamming_distance(first, {"c": [0, 1], "b": "x", "a": 1}) == 0
    assert hamming_distance(first, {"a": 2, "b": "x", "c": [1, 0]}) == 2
    with pytest.raises(ConfigurationError, match=r"labels \['a', 'b', 'c'\], but got \['a'\]"):
        hamming_distance(first, {"a": 1})


def test_cosine_over_what_both_contain() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 2, 3))
    first = [torch.tensor(rows[0]), torch.tensor(rows[1]), None]
    second = [torch.tensor(rows[2]), torch.tensor(rows[3]), torch.ones(1)]
    a, b = rows[:2].ravel(), rows[2:].ravel()
    expected = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    assert gradient_cosine(first, second) == pytest.approx(expected)
    assert gradient_cosine([first[0], None], [second[0], first[1]]) == pytest.approx(
        rows[0].ravel() @ rows[2].ravel() / (np.linalg.norm(rows[0]) * np.linalg.norm(rows[2]))
    )
    assert gradient_cosine(first, first) == pytest.approx(1.0)
    assert math.isnan(gradient_cosine([first[0], None], [None, first[0]]))
    assert math.isnan(gradient_cosine([torch.zeros(2)], [torch.ones(2)]))
    with pytest.raises(ConfigurationError, match="same length, but got 3 and 1"):
        gradient_cosine(first, [None])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_has_no_cosine(value: float) -> None:
    broken, whole = torch.tensor([1.0, value]), torch.ones(2)
    assert math.isnan(gradient_cosine([broken], [whole])) and math.isnan(gradient_cosine([whole], [broken]))
    assert math.isnan(gradient_cosine([broken, whole], [broken, whole]))


def test_the_cosine_of_tiny_gradients() -> None:
    # The product of the squared norms underflows in double.
    one, other = torch.tensor([1.0, 0.0]).double() * 1e-100, torch.tensor([1.0, 1.0]).double() * 1e-100
    assert gradient_cosine([one], [other]) == pytest.approx(math.sqrt(0.5))


def test_gradients_of_different_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"same shapes, but got \(2, 3\) and \(3,\)"):
        gradient_cosine([torch.ones(2, 3)], [torch.ones(3)])


def test_deviation_pools_all_elements() -> None:
    rng = np.random.default_rng(1)
    small, large = rng.normal(size=(5, 2)), 3 * rng.normal(size=(5, 4, 2))
    batches = [[torch.tensor(small[i]), None, torch.tensor(large[i])] for i in range(5)]
    variances = np.concatenate([small.var(axis=0).ravel(), large.var(axis=0).ravel()])
    assert gradient_deviation(batches) == pytest.approx(math.sqrt(variances.mean()))
    for bad in (batches[:1], [[None], [None]], []):
        with pytest.raises(ConfigurationError, match="gradients of at least 2 batches"):
            gradient_deviation(bad)


def test_deviation_of_weights_that_the_first_batch_does_not_reach() -> None:
    one, three = torch.tensor([1.0]), torch.tensor([3.0])
    assert gradient_deviation([[None], [one], [three]]) == 1.0
    with pytest.raises(DataError, match="as many entries for each batch, but got from 1 to 2"):
        gradient_deviation([[one], [one, three]])
    with pytest.raises(DataError, match=r"same shapes for each batch, but got \[\(1,\), \(2,\)\]"):
        gradient_deviation([[one], [torch.ones(2)]])


@pytest.mark.parametrize(
    ("losses", "tolerance", "step"),
    [
        ([2.0, 1.5, 1.2, 1.0], 0.2, 2),  # at most 1.2
        ([2.0, 1.5, 1.2, 1.0], 0.19, 3),
        ([2.0, 1.0, 1.9, 1.0], 0.5, 3),  # it went back above 1.5
        ([1.0, 2.0, 2.0], 0.1, 0),
        ([1.0, 1.0], 0.1, 0),
    ],
)
def test_convergence_step(losses: list[float], tolerance: float, step: int) -> None:
    assert convergence_step(losses, tolerance) == step


def test_complexity_convergence() -> None:
    curves = [[2.0 * 0.5 ** (epoch / scale) for epoch in range(40)] for scale in (1, 2, 4)]
    assert complexity_convergence([10, 20, 30], curves) == pytest.approx(1.0)
    assert complexity_convergence([30, 20, 10], curves) == pytest.approx(-1.0)
    steps = [convergence_step(curve) for curve in curves]
    assert complexity_convergence([1.0, 5.0, 6.0], curves, correlation=pearson_r) == pytest.approx(
        float(np.corrcoef([1.0, 5.0, 6.0], steps)[0, 1])
    )
    assert math.isnan(complexity_convergence([1.0, 2.0], [[2.0, 1.0], [3.0, 1.0]]))
    with pytest.raises(ConfigurationError, match="at least 2 values and to be within"):
        complexity_convergence([1, 2], [[1.0], [2.0]])
    with pytest.raises(ConfigurationError, match="same length, but got 3 and 2"):
        complexity_convergence([1, 2, 3], curves[:2])
    with pytest.raises(ConfigurationError, match=r"`complexities` and `curves` .* same length, but got 2 and 0"):
        complexity_convergence([1.0, 2.0], [])
    with pytest.raises(ConfigurationError, match=r"`complexities` and `curves` .* at least 2 items, but got 0"):
        complexity_convergence([], [])
    with pytest.raises(DataError, match="NaN"):
        convergence_step([1.0, math.nan])
    with pytest.raises(ConfigurationError, match="the same times, but got lengths from 2 to 3"):
        complexity_convergence([1.0, 2.0], [[2.0, 1.0], [3.0, 2.0, 1.0]])


@pytest.mark.parametrize("losses", [[math.inf, 2.0, 1.0], [2.0, 1.0, math.inf], [2.0, 1.0, -math.inf]])
def test_without_a_finite_way_nothing_converges(losses: list[float]) -> None:
    with pytest.raises(DataError, match=f"finite first and last value, but got {losses[0]} and {losses[-1]}"):
        convergence_step(losses)


def test_an_infinite_loss_on_the_way_is_above_the_bound() -> None:
    assert convergence_step([2.0, 1.0, math.inf, 1.0]) == 3
