"""Distributions, schedules, bounds and averages of importance sampling, against arithmetic and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.functional import (
    GradientMoments,
    NormAverage,
    gradient_norm_bound,
    importance_weight,
    neural_tangent_kernel,
    resolve_schedule,
    smoothed_distribution,
    trainability,
)

NORMS = st.lists(
    st.one_of(
        st.just(0.0),
        st.just(math.inf),
        st.floats(min_value=0.0, max_value=1e308),
        st.floats(min_value=5e-324, max_value=1e-300),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=300)
@given(NORMS, st.floats(min_value=0.0, max_value=1.0))
def test_distribution_sums_to_one_and_keeps_its_floor(norms: list[float], smoothing: float) -> None:
    p = smoothed_distribution(norms, smoothing)
    assert p.shape == (len(norms),)
    assert abs(math.fsum(p) - 1.0) < 1e-12
    assert (p >= (1.0 - smoothing) / len(norms) - 1e-12).all()
    order = np.argsort(norms, kind="stable")
    assert (np.diff(p[order]) >= -1e-12).all(), "a larger norm must not be less likely"


@settings(max_examples=100)
@given(NORMS, st.floats(min_value=0.0, max_value=1.0), st.data())
def test_floor_follows_the_prior(norms: list[float], smoothing: float, data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 10.0), min_size=len(norms), max_size=len(norms)))
    prior = [w / sum(weights) for w in weights]
    p = smoothed_distribution(norms, smoothing, prior)
    assert abs(math.fsum(p) - 1.0) < 1e-12
    assert all(a >= (1.0 - smoothing) * b - 1e-12 for a, b in zip(p, prior, strict=True))


def test_distribution_by_hand() -> None:
    assert smoothed_distribution([2.0, 6.0, 0.0, 0.0], 0.5).tolist() == [0.25, 0.5, 0.125, 0.125]
    assert smoothed_distribution([0.0, 0.0], 1.0).tolist() == [0.5, 0.5]
    assert smoothed_distribution([math.inf, 7.0, math.inf, 0.0], 1.0).tolist() == [0.5, 0.0, 0.5, 0.0]
    assert smoothed_distribution([1.0, 0.0], 0.0).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0, math.nan], 0.5), DataError, "free of NaN"),
        (([1.0, -1.0], 0.5), ConfigurationError, "no negative number"),
        (([1.0], 1.5), ConfigurationError, "between 0 and 1"),
        (([], 0.5), ConfigurationError, "at least one"),
        (([1.0, 2.0], 0.5, [1.0]), ConfigurationError, "the 2 entries"),
    ],
)
def test_distribution_refuses(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        smoothed_distribution(*arguments)


def test_schedules() -> None:
    assert [resolve_schedule("linear")(t) for t in (0.0, 0.3, 1.0)] == [0.0, 0.3, 1.0]
    assert [resolve_schedule("linear_down")(t) for t in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    assert resolve_schedule(0.4)(0.9) == 0.4
    assert resolve_schedule(lambda t: t * t)(0.5) == 0.25
    for wrong in ("cosine", 1.0, -0.1, True, None):
        with pytest.raises(ConfigurationError, match="Argument `delta` is expected to be one of"):
            resolve_schedule(wrong, "delta")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"to return a number from 0 to 1, but got 2\.0"):
        resolve_schedule(lambda t: 2.0, "delta")(0.5)


@pytest.mark.parametrize("soft", [False, True])
def test_bound_is_the_norm_of_the_loss_gradient_in_the_logits(soft: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 5, generator=generator) * 3
    targets = torch.randint(5, (12,), generator=generator)
    if soft:
        targets = torch.softmax(torch.randn(12, 5, generator=generator), 1)
    found = gradient_norm_bound(logits, targets)
    for row, target, value in zip(logits, targets, found, strict=True):
        z = row.clone().requires_grad_()
        nn.functional.cross_entropy(z[None], target[None]).backward()
        assert z.grad is not None and torch.isclose(z.grad.norm(), value, atol=1e-6)


def test_bound_of_ignored_examples_is_that_of_their_gradient() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([2, -100, 0, -100])
    nn.functional.cross_entropy(logits, targets, reduction="sum").backward()
    assert logits.grad is not None
    torch.testing.assert_close(gradient_norm_bound(logits, targets), logits.grad.norm(dim=1))


@pytest.mark.parametrize("label", [3, -1, -99])
def test_labels_without_a_class_score_are_refused(label: int) -> None:
    with pytest.raises(DataError, match=f"class indices from 0 to 2, or -100 for .* but got {label}. Give"):
        gradient_norm_bound(torch.zeros(2, 3), torch.tensor([0, label]))


@pytest.mark.parametrize("prior", [[0.0, 0.0], [math.inf, 1.0], [-1.0, 3.0]])
def test_a_prior_that_is_no_distribution_is_refused(prior: list[float]) -> None:
    for smoothing in (0.0, 0.5):
        with pytest.raises(ConfigurationError, match="`prior` is expected to hold finite probabilities that"):
            smoothed_distribution([1.0, 2.0], smoothing, prior)


def test_an_importance_weight_needs_a_prior_for_each_probability() -> None:
    with pytest.raises(DataError, match="same length, but got 2 and 1"):
        importance_weight([0.5, 0.25], [0.25])


def test_an_unknown_average_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"`kind` is expected to be one of .* but got 'median'"):
        NormAverage(2, "median")  # type: ignore[arg-type]


def test_bound_of_half_precision_and_its_refusals() -> None:
    logits = torch.tensor([[100.0, 0.0], [0.0, 100.0]], dtype=torch.float16, requires_grad=True)
    bound = gradient_norm_bound(logits, torch.tensor([0, 0]))
    assert bound.dtype == torch.float32 and not bound.requires_grad
    torch.testing.assert_close(bound, torch.tensor([0.0, math.sqrt(2.0)]))
    with pytest.raises(DataError, match=r"shape \(N, C\)"):
        gradient_norm_bound(torch.zeros(2, 3, 4), torch.zeros(2))
    with pytest.raises(DataError, match="class indices of shape"):
        gradient_norm_bound(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(DataError, match="class indices of shape"):
        gradient_norm_bound(torch.zeros(2, 3), torch.zeros(2))


def test_averages_by_hand() -> None:
    mean, pairwise = NormAverage(2), NormAverage(2, "pairwise")
    for value in (3.0, 5.0, 6.0):
        mean.add([1], [value])
        pairwise.add([1], [value])
    np.testing.assert_allclose(mean.values, [0.0, 14 / 3])
    assert pairwise.values.tolist() == [0.0, ((1.5 + 5.0) / 2 + 6.0) / 2]
    mean.add([0, 0, 1], [1.0, 3.0, 2.0])
    np.testing.assert_allclose(mean.values, [2.0, 4.0])
    assert mean.counts.tolist() == [2, 4]
    assert NormAverage(2).over(np.array([7.0, 8.0])).tolist() == [7.0, 8.0]


def test_weights_by_hand() -> None:
    assert importance_weight([0.5, 0.1], [0.25, 0.2]) == 1.0
    assert importance_weight([0.8], [0.2]) == 0.25


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(2, 9))
def test_moments_equal_the_variance_of_stored_gradients(seed: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.zeros(3), torch.zeros(2, 2)]
    stored: list[list[torch.Tensor]] = [[], []]
    moments = GradientMoments()
    for step in range(steps):
        reached = [0, 1] if step % 2 == 0 else [1]
        gradients = [5.0 + torch.randn(tensors[i].shape, generator=generator) for i in reached]
        for i, gradient in zip(reached, gradients, strict=True):
            stored[i].append(gradient.double())
        moments.add([tensors[i] for i in reached], gradients)
    expected = [float(torch.stack(g).var(dim=0, correction=0).sum()) for g in stored]
    np.testing.assert_allclose(moments.variances(), expected, rtol=1e-3, atol=1e-4)
    assert moments.sizes() == [3, 4] and moments.counts() == [len(g) for g in stored]
    moments.reset()
    assert moments.variances() == [0.0, 0.0]


def test_tangent_kernel_equals_products_of_explicit_gradients() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    unused = nn.Parameter(torch.ones(2))
    inputs = torch.randn(3, 3)
    rows = []
    for example in inputs:
        network.zero_grad()
        network(example[None]).sum().backward()
        rows.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    network.zero_grad(set_to_none=True)
    kernel = neural_tangent_kernel(network, [*network.parameters(), unused], inputs)
    for i in range(3):
        for j in range(3):
            assert math.isclose(float(kernel[i, j]), float(rows[i] @ rows[j]), rel_tol=1e-4)
    assert all(p.grad is None for p in network.parameters())
    values = np.linalg.eigvalsh(kernel.numpy())
    result = trainability(kernel)
    assert math.isclose(result.condition, values[-1] / values[0], rel_tol=1e-6)
    assert math.isclose(result.trace, values.sum() / 3, rel_tol=1e-6)
    assert trainability(torch.tensor([[1.0, 1.0], [1.0, 1.0]])).condition > 1e10
    with pytest.raises(DataError, match="weights that the output depends on"):
        neural_tangent_kernel(lambda x: x, [unused], inputs)


def test_tangent_kernel_of_close_inputs_is_computed_in_double() -> None:
    # One weight of two rows: the gradients are the inputs. x and x + d: condition about 4 |x|^4 / |x ^ d|^2.
    layer = nn.Linear(2, 1, bias=False).double()
    inputs = torch.tensor([[3.0, 4.0], [3.0, 4.0 + 1e-4]], dtype=torch.float64)
    kernel = neural_tangent_kernel(layer, [layer.weight], inputs)
    area = 3.0 * 1e-4  # of the parallelogram
    assert trainability(kernel).condition == pytest.approx(4 * 5.0**4 / area**2, rel=1e-3)


def test_tangent_kernel_counts_neither_frozen_nor_unused_weights() -> None:
    layer, other = nn.Linear(2, 1), nn.Linear(2, 1)
    layer.bias.requires_grad_(False)
    inputs = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    weights = [*layer.parameters(), *other.parameters()]
    assert neural_tangent_kernel(layer, weights, inputs).tolist() == [[1.0, 1.0], [1.0, 5.0]]
    for useless in ([layer.bias], list(other.parameters()), []):
        with pytest.raises(DataError, match="weights that the output depends on"):
            neural_tangent_kernel(layer, useless, inputs)


def test_tangent_kernel_where_examples_use_different_weights() -> None:
    weights = [nn.Parameter(torch.tensor([2.0])) for _ in range(2)]
    kernel = neural_tangent_kernel(
        lambda x: torch.stack([x[0] * weights[0], x[1] * weights[1]]), weights, torch.tensor([[3.0], [4.0]])
    )
    assert kernel.tolist() == [[9.0, 0.0], [0.0, 16.0]]
