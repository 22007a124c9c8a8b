"""Weight decay leaves normalisation layers and biases alone."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional import decay_groups, weights_only_decay


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_only_weights_shrink():
    network = model()
    names = {id(p): name for name, p in network.named_parameters()}
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = weights_only_decay(torch.optim.SGD, momentum=0.9, nesterov=True)(
        network.parameters(), lr=1.0, weight_decay=0.5
    )
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    # One step without gradient: p -= lr * (1 + momentum) * decay * p, with Nesterov momentum.
    for p in network.parameters():
        factor = 1 - 1.9 * 0.5 if names[id(p)] in ("0.weight", "3.weight") else 1.0
        assert torch.allclose(p, before[names[id(p)]] * factor)


def test_groups_hold_every_parameter_once():
    network = model()
    groups = decay_groups(network.parameters(), 1e-5)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in network.parameters())
    assert decay_groups([nn.Parameter(torch.zeros(3))], 0.1)[0]["weight_decay"] == 0.0


def test_the_factory_survives_pickling():
    make = pickle.loads(pickle.dumps(weights_only_decay(torch.optim.AdamW, betas=(0.5, 0.9))))
    optimizer = make(model().parameters(), lr=0.1, weight_decay=0.01)
    assert [group["betas"] for group in optimizer.param_groups] == [(0.5, 0.9)] * 2


def test_negative_decay_is_refused():
    with pytest.raises(ConfigurationError, match="`weight_decay` is expected to be a number of at least 0"):
        decay_groups(model().parameters(), -1.0)


def test_decay_among_the_fixed_settings_is_refused():
    with pytest.raises(ConfigurationError, match=r"but got 0.0005. Give it to the evaluator \(`Classification"):
        weights_only_decay(torch.optim.SGD, momentum=0.9, weight_decay=5e-4)


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        (lambda net: [{"params": net.parameters(), "lr": 0.1}], "dict"),
        (lambda net: net.named_parameters(), "tuple"),
    ],
)
def test_groups_and_named_parameters_are_refused(parameters, found):
    with pytest.raises(
        ConfigurationError, match=f"`parameters` is expected to hold tensors, but got a {found}. Giv"
    ):
        decay_groups(parameters(model()), 1e-5)
