"""NAS-Bench-Macro: the network against the published table and against itself written out."""

from __future__ import annotations

import csv
import gzip
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nni_supernet_ext.benchmarks import NasBenchMacroOracle
from nni_supernet_ext.core import flop_count, parameter_count
from nni_supernet_ext.errors import ConfigurationError, SpaceError
from nni_supernet_ext.spaces import (
    NASBENCH_MACRO_LABELS,
    NASBENCH_MACRO_OPERATIONS,
    nasbench201,
    nasbench_macro,
    nasbench_macro_flops,
    nasbench_macro_operations,
    nasbench_macro_params,
)
from nni_supernet_ext.testing import toy_supernet

SMALL = {"channels": 4, "head_channels": 16, "n_classes": 7}
SAMPLES = ["00000000", "11111111", "22222222", "01202101", "20110022"]


def as_sample(code):
    return {f"layer{index}": ("identity", "mb3_k3", "mb6_k5")[int(d)] for index, d in enumerate(code)}


@pytest.fixture(scope="module")
def rows(data_dir):
    path = data_dir / "nas_bench_macro.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is absent from the data folder.")
    with gzip.open(path, "rt") as stream:
        return list(csv.DictReader(stream))


def test_costs_of_all_architectures_equal_the_table(rows):
    assert len(rows) == 6_561
    supernet = toy_supernet(nasbench_macro())
    counted = parameter_count(supernet.model)
    measured = flop_count(supernet, torch.zeros(2, 3, 32, 32))
    for row in rows:
        sample, params, flops = as_sample(row["arch"]), int(float(row["params"])), int(float(row["flops"]))
        assert nasbench_macro_params(sample) == nasbench_macro_params(row["arch"]) == counted(sample) == params
        assert nasbench_macro_flops(sample) == nasbench_macro_flops(row["arch"]) == measured(sample) == flops


def naive(space, code, x):
    """Compute the network step by step from its tensors."""

    def conv_norm(x, part, stride=1, groups=1):
        weight = part[0].weight
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, shift = part[1].weight, part[1].bias
        return (x - mean) / (var + part[1].eps).sqrt() * scale[:, None, None] + shift[:, None, None]

    x = conv_norm(x, space.stem).clamp(min=0)
    for index, digit in enumerate(code):
        first = index in (0, 2, 5)
        block = space.layers[index][NASBENCH_MACRO_OPERATIONS[int(digit)]]
        if digit == "0":
            x = conv_norm(x, block, stride=2) if first else x
            continue
        hidden = block.expand[0].out_channels
        y = conv_norm(x, block.expand).clamp(min=0)
        y = conv_norm(y, block.filter, 2 if first else 1, hidden).clamp(min=0)
        y = conv_norm(y, block.project)
        x = y if first else x + y
    x = conv_norm(x, space.head).clamp(min=0).mean((2, 3))
    return x @ space.head[5].weight.T + space.head[5].bias


@pytest.mark.parametrize("code", SAMPLES)
def test_output_equals_the_naive_network(code):
    torch.manual_seed(0)
    supernet = toy_supernet(nasbench_macro(**SMALL).double())
    for parameter in supernet.model.parameters():
        nn.init.normal_(parameter, std=0.5)
    supernet.activate(as_sample(code))
    x = torch.randn(3, 3, 16, 16, dtype=torch.double)
    torch.testing.assert_close(supernet.model(x), naive(supernet.model, code, x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("code", SAMPLES)
@pytest.mark.parametrize("size", [32, 16, 10])
def test_costs_of_small_networks_equal_a_count_while_running(code, size):
    network = toy_supernet(nasbench_macro(**SMALL)).extract(as_sample(code))
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    network(torch.randn(2, 3, size, size))
    assert nasbench_macro_flops(code, **SMALL, image_size=size) == total
    assert nasbench_macro_params(code, **SMALL) == sum(p.numel() for p in network.parameters())


def test_labels_and_candidates_are_the_oracles():
    assert NasBenchMacroOracle.format.labels == NASBENCH_MACRO_LABELS
    assert NasBenchMacroOracle.format.candidates == NASBENCH_MACRO_OPERATIONS
    simplified = nasbench_macro(**SMALL).simplify()
    assert tuple(map(str, simplified)) == NASBENCH_MACRO_LABELS
    assert nasbench_macro_operations(as_sample("01201201")) == nasbench_macro_operations("01201201")


@pytest.mark.parametrize(("leave_out", "size"), [(["none"], 4096), (["none", "skip_connect", "avg_pool_3x3"], 64)])
def test_subsets_of_nasbench201(leave_out, size):
    every = ["none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3"]
    supernet = toy_supernet(
        nasbench201(channels=2, cells_per_stage=1, operations=[op for op in every if op not in leave_out])
    )
    samples = {tuple(sample.values()) for sample in supernet.domain.grid()}
    assert len(samples) == size == supernet.domain.size()
    assert not any(set(sample) & set(leave_out) for sample in itertools.islice(samples, 100))
    supernet.activate(supernet.domain.random(np.random.default_rng(0)))
    assert supernet.model(torch.randn(2, 3, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    "architecture", ["0000000", "00000003", {"layer0": "identity"}, {}, as_sample("0" * 8) | {"a": 1}]
)
def test_wrong_architectures_are_refused(architecture):
    with pytest.raises(SpaceError, match="eight digits 0 to 2"):
        nasbench_macro_params(architecture)


def test_wrong_sizes_are_refused():
    with pytest.raises(ConfigurationError, match="`head_channels` is expected to be a positive integer, but got 0"):
        nasbench_macro(head_channels=0)
