"""Complexities and extremes against counting the extracted networks and enumerating the space."""

from __future__ import annotations

import itertools
import math

import nni
import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableLinear
from torch import nn

from nni_supernet_ext.core import find_extremes, flop_count, parameter_count, resolve_complexity
from nni_supernet_ext.core.pairs import samples_of_all_pairs
from nni_supernet_ext.core.parameter_count import count_weights
from nni_supernet_ext.errors import ConfigurationError, SpaceError
from nni_supernet_ext.spaces import nasbench201, nasbench201_flops
from nni_supernet_ext.testing import ToyCellSpace, toy_supernet
from tests.core.test_equals_random_one_shot import CellSpace, EveryPrimitive

SPACES = [lambda: None, ToyCellSpace, EveryPrimitive, lambda: nasbench201(channels=4, cells_per_stage=1)]
IDS = ["toy", "cells", "primitives", "nasbench201"]


@pytest.mark.parametrize("make", SPACES, ids=IDS)
def test_counts_equal_those_of_the_extracted_network(make):
    supernet = toy_supernet(make())
    everything = parameter_count(supernet.model)
    weights = parameter_count(supernet.model, count_weights)
    rng = np.random.default_rng(0)
    for _ in range(12):
        sample = supernet.domain.random(rng)
        parameters = list(supernet.extract(sample).parameters())
        assert everything(sample) == sum(p.numel() for p in parameters)
        assert weights(sample) == sum(p.numel() for p in parameters if p.dim() >= 2)


def test_cell_counts_each_operation_in_use_once():
    supernet = toy_supernet(CellSpace())
    count = parameter_count(supernet.model)
    conv, head = 3 * 3 * 9 + 3, 6 * 10 + 10
    base = {"cell/input_1_0": [0], "cell/input_2_0": [1]}
    assert count({**base, "cell/op_1_0": "conv", "cell/op_2_0": "skip"}) == conv + head
    assert count({**base, "cell/op_1_0": "conv", "cell/op_2_0": "conv"}) == 2 * conv + head
    assert count({**base, "cell/op_1_0": "skip", "cell/op_2_0": "skip"}) == head


@pytest.mark.parametrize("make", SPACES, ids=IDS)
@pytest.mark.parametrize("measure", ["parameters", "weights"])
def test_extremes_equal_enumeration(make, measure):
    supernet = toy_supernet(make())
    complexity = resolve_complexity(measure, supernet)
    extremes = find_extremes(complexity, supernet.domain)
    values = [complexity(sample) for sample in supernet.domain.grid()]
    assert extremes.exact
    assert (extremes.minimum, extremes.maximum) == (min(values), max(values))
    assert complexity(extremes.smallest) == extremes.minimum
    assert complexity(extremes.largest) == extremes.maximum


def test_large_spaces_are_searched_and_say_so():
    supernet = toy_supernet(nasbench201(channels=4, cells_per_stage=1))
    supernet.domain.size = lambda: 1e9
    penalty = {"none": 0, "skip_connect": 1, "conv_1x1": 3, "conv_3x3": 9, "avg_pool_3x3": 2}
    extremes = find_extremes(lambda sample: sum(penalty[v] for v in sample.values()) ** 2, supernet.domain)
    assert not extremes.exact
    assert (extremes.minimum, extremes.maximum) == (0, 54**2)


STEPS = {0: 0.0, 1: 0.3, 2: 0.9}
PLATEAUS = {
    "rounded": lambda values: round(sum(STEPS[v] for v in values)),
    "floored": lambda values: sum(values) // 4,
    "slowest of two branches": lambda values: max(sum(values[:6]), sum(values[6:])),
    "slowest of four branches": lambda values: max(sum(values[i::4]) for i in range(4)),
    "slowest of six pairs": lambda values: max(map(sum, zip(values[::2], values[1::2], strict=True))),
    "product": lambda values: math.prod(v + 1 for v in values[:6]) // 7 + max(values[6:]),
}


@pytest.mark.parametrize("name", PLATEAUS)
def test_ends_of_what_is_monotone_in_every_choice_but_seldom_changes(name):
    class Layers(ModelSpace):
        def __init__(self):
            super().__init__()
            # The order of the candidates must not matter: it differs from choice to choice.
            orders = ([0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0])
            self.widths = [nni.choice(f"c{i}", orders[i % 4]) for i in range(12)]
            self.layers = torch.nn.ModuleList(MutableLinear(3, width + 1) for width in self.widths)

    domain = toy_supernet(Layers()).domain
    measure = PLATEAUS[name]
    extremes = find_extremes(lambda sample: measure([sample[f"c{i}"] for i in range(12)]), domain)
    assert not extremes.exact
    assert (extremes.minimum, extremes.maximum) == (measure([0] * 12), measure([2] * 12))


@pytest.mark.parametrize(("unknown", "most"), [(math.nan, 50), (math.inf, math.inf)])
def test_ends_of_a_measure_that_does_not_know_every_subnet(unknown, most):
    supernet = toy_supernet(nasbench201(channels=4, cells_per_stage=1))
    supernet.domain.size = lambda: 1e9
    cost = {"none": 0, "skip_connect": 1, "conv_1x1": 3, "conv_3x3": 9, "avg_pool_3x3": 10}

    def measure(sample):
        known = sample["cell/0_1"] != "avg_pool_3x3"
        return sum(cost[v] for v in sample.values()) - 9 if known else unknown

    extremes = find_extremes(measure, supernet.domain)
    assert (extremes.minimum, extremes.maximum) == (-9, most)


def test_flops_of_nasbench201_equal_the_closed_form():
    supernet = toy_supernet(nasbench201(channels=4, cells_per_stage=1))
    measured = flop_count(supernet, torch.zeros(2, 3, 8, 8))
    rng = np.random.default_rng(1)
    for _ in range(5):
        sample = supernet.domain.random(rng)
        # The benchmark counts the ten additions of the classifier's bias besides.
        expected = nasbench201_flops(sample, channels=4, cells_per_stage=1, image_size=8) - 10
        assert measured(sample) == expected
    extremes = find_extremes(measured, supernet.domain)
    assert extremes.exact
    assert set(extremes.largest.values()) == {"conv_3x3"}


def test_flops_that_are_no_sum_are_measured_one_by_one():
    """In the toy space a wider stem makes every candidate dearer: a product, not a sum."""
    supernet = toy_supernet()
    measured = flop_count(supernet, torch.zeros(2, 3, 8, 8))
    for width in (4, 8):
        stem, head = 16 * 3 * width * 9, width * 10
        body = {"conv": 16 * width * width * 9, "linear": 16 * width * width, "skip": 0}
        for op, cost in body.items():
            assert measured({"op": op, "width": width}) == stem + cost + head


class RareWidth(ModelSpace):
    """A width that matters to one of many candidates only, beside choices that cost nothing."""

    def __init__(self, others, idle=0):
        super().__init__()
        width = nni.choice("width", [4, 8])
        candidates = {f"idle_{i}": nn.Identity() for i in range(others)}
        candidates["mlp"] = nn.Sequential(MutableLinear(6, width), nn.ReLU(), MutableLinear(width, 6))
        self.op = LayerChoice(candidates, label="op")
        free = (LayerChoice([nn.Identity(), nn.ReLU()], label=f"free_{i}") for i in range(idle))
        self.free = nn.Sequential(*free)

    def forward(self, x):
        return self.free(self.op(x))


@pytest.mark.parametrize("others", [1, 3, 40])
@pytest.mark.parametrize("idle", range(4))
def test_a_rare_interplay_is_no_sum(others, idle):
    supernet = toy_supernet(RareWidth(others, idle))
    measured = flop_count(supernet, torch.zeros(2, 6))
    rng = np.random.default_rng(0)
    for _ in range(20):
        sample = {**supernet.domain.random(rng), "op": "mlp"}
        assert measured(sample) == 2 * 6 * sample["width"]
        assert measured({**sample, "op": "idle_0"}) == 0


def test_every_pair_of_candidates_is_tried():
    candidates = {"a": [0, 1, 2], "b": "xyz", "c": [None, False], "d": [7], "e": range(5)}
    rows = list(samples_of_all_pairs(candidates, np.random.default_rng(0)))
    assert len(rows) < 30
    for one, other in itertools.combinations(candidates, 2):
        together = {(row[one], row[other]) for row in rows}
        assert together == set(itertools.product(candidates[one], candidates[other]))
    assert list(samples_of_all_pairs({"a": [1, 2]}, np.random.default_rng(0))) == [{"a": 1}, {"a": 2}]


class Sequences(ModelSpace):
    def __init__(self):
        super().__init__()
        candidates = {
            "lstm": nn.LSTM(6, 8, batch_first=True),
            "gru": nn.GRU(6, 8, batch_first=True),
            "attention": nn.MultiheadAttention(6, 2, batch_first=True),
            "transformer": nn.TransformerEncoderLayer(6, 2, dim_feedforward=12, batch_first=True),
        }
        self.mix = LayerChoice({name: _Only(layer) for name, layer in candidates.items()}, label="mix")

    def forward(self, x):
        return self.mix(x)


class _Only(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        out = self.layer(x, x, x) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
        return out[0] if isinstance(out, tuple) else out


def test_recurrent_layers_and_attention_count():
    """Their fused kernels would count nothing in a network that only predicts."""
    measured = flop_count(toy_supernet(Sequences()), torch.zeros(2, 5, 6))
    steps, attention = 5, 5 * 6 * (3 * 6 + 6) + 2 * 5 * 5 * 6
    assert measured({"mix": "lstm"}) == steps * 4 * 8 * (6 + 8)
    assert measured({"mix": "gru"}) == steps * 3 * 8 * (6 + 8)
    assert measured({"mix": "attention"}) == attention
    assert measured({"mix": "transformer"}) == attention + steps * 2 * 6 * 12
    assert torch.backends.mha.get_fastpath_enabled()


def test_measuring_leaves_the_supernet_alone():
    supernet = toy_supernet()
    before = {name: value.clone() for name, value in supernet.model.state_dict().items()}
    supernet.activate({"op": "skip", "width": 4})
    supernet.model.train()
    flop_count(supernet, torch.randn(2, 3, 8, 8))
    assert supernet.active == {"op": "skip", "width": 4}
    assert supernet.model.training
    assert all(torch.equal(before[name], value) for name, value in supernet.model.state_dict().items())


def test_unknown_measure_and_missing_input_are_refused():
    with pytest.raises(ConfigurationError, match=r"but got 'latency'\. Use one of them"):
        resolve_complexity("latency", toy_supernet())
    with pytest.raises(ConfigurationError, match="`inputs` is expected to be an example input batch"):
        resolve_complexity("flops", toy_supernet())


class TwoNames(ModelSpace):
    """The same choice, with the same weights, at two places."""

    def __init__(self):
        super().__init__()
        self.first = LayerChoice(
            {"linear": nn.Linear(4, 4), "wide": nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 4))}, label="op"
        )
        self.again = nn.ModuleList([self.first])

    def forward(self, x):
        return self.again[0](self.first(x))


def test_a_choice_under_two_names_counts_once():
    supernet = toy_supernet(TwoNames())
    count = resolve_complexity("parameters", supernet)
    assert count({"op": "linear"}) == 4 * 4 + 4
    assert count({"op": "wide"}) == 4 * 9 + 9 + 9 * 4 + 4


class Lazy(ModelSpace):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice({"linear": nn.LazyLinear(4), "skip": nn.Identity()}, label="op")

    def forward(self, x):
        return self.op(x)


def test_weights_without_a_shape_are_refused():
    with pytest.raises(SpaceError, match=r"got 2 of lazy layers, 'op\.linear\.weight' the first\. Give the layers"):
        resolve_complexity("parameters", toy_supernet(Lazy()))
