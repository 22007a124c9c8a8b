"""Momentum separation: bit for bit against torch.optim.SGD, one optimizer per cluster."""

from __future__ import annotations

import io
import itertools

import pytest
import torch
from torch import Tensor

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional import separated_momentum_step

SETTINGS = [
    {"lr": 0.1, "momentum": 0.0},
    {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.01},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.025, "momentum": 0.9, "weight_decay": 5e-4, "dampening": 0.3},
    {"lr": 0.025, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
]


def start() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((3, 4), (5,), (), (2, 2, 3))]


def gradients(step: int, params: list[Tensor]) -> list[Tensor | None]:
    """Gradients as of path sampling: now and then a parameter is not part of the subnet."""
    generator = torch.Generator().manual_seed(100 + step)
    return [
        None if (step + position) % 3 == 0 else torch.randn(param.shape, generator=generator)
        for position, param in enumerate(params)
    ]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("clusters", [["a"], ["a", "b", "c"]])
def test_equals_one_torch_optimizer_per_cluster(clusters: list, settings: dict, foreach: bool) -> None:
    theirs = [torch.nn.Parameter(param) for param in start()]
    optimizers = {cluster: torch.optim.SGD(theirs, foreach=foreach, **settings) for cluster in clusters}
    ours, buffers = start(), {}
    order = [clusters[(step * step + step // 2) % len(clusters)] for step in range(12)]
    assert set(order) == set(clusters)
    for step, cluster in enumerate(order):
        grads = gradients(step, ours)
        for param, grad in zip(theirs, grads, strict=True):
            param.grad = None if grad is None else grad.clone()
        optimizers[cluster].step()
        kept = [None if grad is None else grad.clone() for grad in grads]
        separated_momentum_step(ours, grads, buffers, cluster, **settings)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert all(a is b or torch.equal(a, b) for a, b in zip(grads, kept, strict=True))
    for cluster, optimizer in optimizers.items():
        momenta = {p: optimizer.state[param].get("momentum_buffer") for p, param in enumerate(theirs)}
        momenta = {position: momentum for position, momentum in momenta.items() if momentum is not None}
        own = buffers.get(cluster, {})
        assert own.keys() == momenta.keys()
        assert all(torch.equal(own[position], momentum) for position, momentum in momenta.items())


def test_by_hand() -> None:
    weight, buffers = torch.tensor([1.0]), {}
    trace = []
    for cluster, gradient in (("a", 1.0), ("b", 4.0), ("a", 2.0)):
        separated_momentum_step([weight], [torch.tensor([gradient])], buffers, cluster, lr=0.5, momentum=0.5)
        trace.append(weight.item())
    # a: mu = 1; b: mu = 4; a: mu = 0.5 * 1 + 2 = 2.5. A shared momentum would end with 2 + 0.5 * 4.5 = 4.25.
    assert trace == [0.5, -1.5, -2.75]
    assert {cluster: own[0].item() for cluster, own in buffers.items()} == {"a": 2.5, "b": 4.0}


def test_gradients_may_be_reused_and_are_not_changed() -> None:
    weight, gradient, buffers = torch.zeros(1), torch.ones(1), {}
    for _ in range(2):
        separated_momentum_step([weight], [gradient], buffers, "a", lr=1.0, momentum=0.5)
    assert (gradient.item(), weight.item()) == (1.0, -2.5)
    gradient.zero_()
    assert buffers["a"][0].item() == 1.5


def test_other_clusters_stay_bit_identical() -> None:
    params, buffers = start(), {}
    for step, cluster in enumerate("abab"):
        separated_momentum_step(params, gradients(step, params), buffers, cluster, lr=0.1, momentum=0.9)
    before = {position: momentum.clone() for position, momentum in buffers["a"].items()}
    for step in range(5, 9):
        separated_momentum_step(params, gradients(step, params), buffers, "b", lr=0.1, momentum=0.9)
    assert all(torch.equal(before[position], momentum) for position, momentum in buffers["a"].items())


def test_neutral_momentum_keeps_no_buffers_and_no_gradient_keeps_weights() -> None:
    params, buffers = start(), {}
    separated_momentum_step(params, gradients(1, params), buffers, 0, lr=0.1, momentum=0.0)
    assert buffers == {}
    before = [param.clone() for param in params]
    separated_momentum_step(params, [None] * 4, buffers, 0, lr=0.1, momentum=0.9, weight_decay=0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))


def test_resumes_from_stored_buffers() -> None:
    def train(params: list[Tensor], buffers: dict, steps: range) -> None:
        for step in steps:
            cluster = "xy"[step % 2]
            separated_momentum_step(params, gradients(step, params), buffers, cluster, lr=0.1, momentum=0.9)

    whole, halves, buffers = start(), start(), {}
    train(whole, {}, range(10))
    train(halves, buffers, range(5))
    file = io.BytesIO()
    torch.save(buffers, file)
    file.seek(0)
    train(halves, torch.load(file, weights_only=True), range(5, 10))
    assert all(itertools.starmap(torch.equal, zip(whole, halves, strict=True)))


def test_works_on_parameters_that_require_gradients() -> None:
    layer = torch.nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    before, params = layer.weight.detach().clone(), list(layer.parameters())
    separated_momentum_step(params, [p.grad for p in params], {}, None, lr=1.0, momentum=0.9)
    assert torch.equal(layer.weight, before - 1)
    assert layer.weight.requires_grad
    assert layer.weight.grad_fn is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"lr": -1.0}, "`lr` is expected to be at least 0, but got -1.0"),
        ({"momentum": -0.1}, "`momentum` is expected to be at least 0, but got -0.1"),
        ({"weight_decay": float("nan")}, "`weight_decay` is expected to be at least 0, but got nan"),
        ({"nesterov": True, "momentum": 0.0}, "`nesterov` is expected to be False unless"),
        ({"nesterov": True, "dampening": 0.1}, "`nesterov` is expected to be False unless"),
        ({"grads": [None]}, r"`grads` is expected to have one entry per parameter \(2\), but got 1"),
        (
            {"grads": [None, torch.ones(3)]},
            r"`grads` is expected to have shape \(2,\) at position 1, but got \(3,\)",
        ),
        ({"buffers": {"a": {0: torch.ones(1)}}}, r"`buffers` is expected to hold a momentum of shape \(2,\)"),
    ],
)
def test_errors_change_nothing(change: dict, match: str) -> None:
    params = [torch.zeros(2), torch.zeros(2)]
    arguments = {"grads": [torch.ones(2), torch.ones(2)], "buffers": {}, "lr": 0.1, "momentum": 0.9, **change}
    with pytest.raises(ConfigurationError, match=match):
        separated_momentum_step(params, cluster="a", **arguments)
    assert not any(param.any() for param in params)
