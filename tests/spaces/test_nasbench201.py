"""NAS-Bench-201 as a search space, against a slow network written out, counts by hand and the table."""

from __future__ import annotations

import copy
import csv
import gzip
import importlib
import itertools
import pickle
import random
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from nni.nas.hub.pytorch import NasBench201 as HubNasBench201
from nni.nas.nn.pytorch import LayerChoice
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingLayer
from nni.nas.space import model_context
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless, RandomOneShot
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nni_supernet_ext import spaces
from nni_supernet_ext.errors import ConfigurationError, SpaceError
from nni_supernet_ext.spaces import (
    NASBENCH201_EDGES,
    NASBENCH201_OPERATIONS,
    NasBench201,
    arch_to_sample,
    nasbench201_flops,
    nasbench201_network,
    nasbench201_params,
    sample_to_arch,
)

SMALL = {"channels": 4, "cells_per_stage": 1}


def uniform(operation: str, **changed: str) -> dict[str, str]:
    """All edges alike except those given as e0_1='conv_3x3'."""
    sample = {f"cell/{edge}": operation for edge in NASBENCH201_EDGES}
    return {**sample, **{f"cell/{edge[1:]}": value for edge, value in changed.items()}}


def random_samples(count: int) -> list[dict[str, str]]:
    rng = random.Random(0)
    return [
        {f"cell/{edge}": rng.choice(NASBENCH201_OPERATIONS) for edge in NASBENCH201_EDGES} for _ in range(count)
    ]


def path_supernet(**arguments) -> nn.Module:
    return RandomOneShot().mutate_model(NasBench201(**{**SMALL, **arguments}))


def activate(supernet: nn.Module, sample: Mapping[str, str]) -> None:
    for module in supernet.modules():
        if isinstance(module, PathSamplingLayer):
            module.resample(memo=dict(sample))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --- the slow reference: every edge computed, none as a multiplication by zero, one stacked sum per node


def naive_norm(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
    x = (x - mean) / (variance + 1e-5).sqrt()
    if norm.weight is not None:
        x = x * norm.weight[:, None, None] + norm.bias[:, None, None]
    return x


def naive_unit(x: torch.Tensor, unit: nn.Module, stride: int = 1) -> torch.Tensor:
    conv = unit.conv
    x = x.clamp(min=0)
    padding = conv.weight.shape[-1] // 2
    return naive_norm(F.conv2d(x, conv.weight, conv.bias, stride=stride, padding=padding), unit.norm)


def naive_pool(x: torch.Tensor) -> torch.Tensor:
    height, width = x.shape[2:]
    rows = []
    for i in range(height):
        window = [x[:, :, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean(dim=(2, 3)) for j in range(width)]
        rows.append(torch.stack(window, dim=-1))
    return torch.stack(rows, dim=2)


def naive_edge(x: torch.Tensor, choice: LayerChoice, operation: str) -> torch.Tensor:
    if operation == "none":
        return x * 0.0
    if operation == "skip_connect":
        return x
    if operation == "avg_pool_3x3":
        return naive_pool(x)
    return naive_unit(x, choice[operation])


def naive_forward(space: nn.Module, sample: Mapping[str, str], images: torch.Tensor) -> torch.Tensor:
    x = naive_norm(F.conv2d(images, space.stem[0].weight, padding=1), space.stem[1])
    for layer in space.cells:
        if not hasattr(layer, "shortcut"):
            nodes = [x]
            for node in (1, 2, 3):
                edges = [f"{source}_{node}" for source in range(node)]
                outs = [
                    naive_edge(nodes[source], layer[edge], sample[f"cell/{edge}"])
                    for source, edge in enumerate(edges)
                ]
                nodes.append(torch.stack(outs).sum(dim=0))
            x = nodes[3]
        else:
            shortcut = F.conv2d(F.avg_pool2d(x, 2), layer.shortcut[1].weight)
            x = naive_unit(naive_unit(x, layer.main[0], stride=2), layer.main[1]) + shortcut
    x = naive_norm(x, space.head[0]).clamp(min=0).mean(dim=(2, 3))
    return x @ space.head[4].weight.T + space.head[4].bias


SPECIAL = [
    uniform("none"),
    uniform("skip_connect"),
    uniform("conv_3x3"),
    uniform("conv_1x1", e2_3="none"),  # node 2 computed for nothing
    uniform("none", e1_3="conv_3x3", e2_3="avg_pool_3x3"),  # only from empty nodes
    uniform("none", e0_3="avg_pool_3x3"),
]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("sample", SPECIAL + random_samples(8))
def test_output_and_gradients_equal_the_naive_network(sample, affine):
    torch.manual_seed(0)
    supernet = path_supernet(affine=affine).double()
    for parameter in supernet.parameters():  # scale and shift must not stay at one and zero
        nn.init.normal_(parameter, std=0.5)
    images = torch.randn(3, 3, 8, 8, dtype=torch.double)
    activate(supernet, sample)

    def run(logits: torch.Tensor) -> dict[str, torch.Tensor]:
        supernet.zero_grad(set_to_none=True)
        F.cross_entropy(logits, torch.tensor([1, 7, 3])).backward()
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in supernet.named_parameters()
        }

    ours, reference = supernet(images), naive_forward(supernet, sample, images)
    torch.testing.assert_close(ours, reference, rtol=1e-8, atol=1e-8)
    gradients, expected = run(ours), run(reference)
    # Behind an empty node every value is equal, and normalization amplifies its rounding error 300 times.
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-6, atol=1e-8, msg=name)


def test_gradients_of_the_reference_are_not_all_zero():
    supernet = path_supernet().double()
    sample = uniform("conv_3x3")
    naive_forward(supernet, sample, torch.randn(3, 3, 8, 8, dtype=torch.double)).square().sum().backward()
    assert supernet.cells[0]["0_1"]["conv_3x3"].conv.weight.grad.abs().max() > 1e-6
    assert supernet.stem[0].weight.grad.abs().max() > 1e-6


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (uniform("skip_connect"), {"add": 3}),
        (uniform("none", e0_1="skip_connect", e1_2="skip_connect", e2_3="skip_connect"), {}),
        (uniform("none"), {"zeros_like": 3}),
        (uniform("avg_pool_3x3", e0_2="none", e0_3="none", e1_3="none"), {"avg_pool2d": 3}),
    ],
)
def test_none_and_skip_connect_compute_nothing(sample, expected):
    supernet = path_supernet()
    activate(supernet, sample)
    with torch.no_grad(), Recorder() as recorder:
        supernet.cells[0](torch.randn(2, 4, 8, 8))
    kernels = [name for name in recorder.calls if name not in ("detach", "randn", "empty_like", "zero_")]
    assert {name: kernels.count(name) for name in kernels} == expected


def test_dead_operation_gets_no_gradient():
    supernet = path_supernet()
    activate(supernet, uniform("conv_3x3", e2_3="none"))
    supernet(torch.randn(2, 3, 8, 8)).sum().backward()
    assert supernet.cells[0]["1_2"]["conv_3x3"].conv.weight.grad is None
    assert supernet.cells[0]["1_3"]["conv_3x3"].conv.weight.grad is not None


# --- counts


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 1_692_474),
        ({"track_running_stats": True}, 1_692_474),
        # 5 cells x 6 edges x (10 w^2 weights + 4 w scales and shifts) for w = 16, 32, 64, and the skeleton
        ({"affine": True}, 5 * 6 * (10 * 5376 + 4 * 112) + 73_306),
        # without convolutions: the skeleton, whose 544 scales and shifts become 192 biases of the two blocks
        ({"operations": ["none", "skip_connect"]}, 73_306 - 544 + 192),
        ({"n_classes": 100, "in_channels": 1}, 1_692_474 + 90 * 65 - 2 * 9 * 16),
    ],
)
def test_supernet_parameter_count(arguments, expected):
    assert count(NasBench201(**arguments)) == expected


@pytest.mark.parametrize("sample", [*SPECIAL, random_samples(1)[0]])
def test_network_has_the_parameters_of_the_closed_form(sample):
    operations = list(sample.values())
    published = 73_306 + 28_000 * operations.count("conv_1x1") + 243_040 * operations.count("conv_3x3")
    assert nasbench201_params(sample) == published
    assert count(nasbench201_network(sample)) == published


@pytest.mark.parametrize("size", [32, 16, 9])
@pytest.mark.parametrize("sample", [uniform("conv_3x3", e0_1="conv_1x1", e1_2="none"), *random_samples(2)])
def test_flops_equal_a_count_while_running(sample, size):
    network = nasbench201_network(sample, channels=6, cells_per_stage=2, n_classes=7, in_channels=2)
    total = 0

    def count_conv(module: nn.Conv2d, inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count_conv)
    network(torch.randn(2, 2, size, size))
    total += 24 * 7 + 7
    arguments = {"channels": 6, "cells_per_stage": 2, "n_classes": 7, "in_channels": 2}
    assert nasbench201_flops(sample, **arguments, image_size=size) == total
    assert nasbench201_params(sample, **arguments) == count(network)


def test_closed_forms_equal_the_table_for_all_architectures(data_dir):
    path = data_dir / "nasbench201.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is absent from the data folder.")
    with gzip.open(path, "rt") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 15_625
    for row in rows:
        sample = arch_to_sample(row["arch"])
        digits = "".join(str(NASBENCH201_OPERATIONS.index(op)) for op in sample.values())
        assert digits == row["code"]
        assert sample_to_arch(sample) == row["arch"]
        assert nasbench201_params(sample) == round(float(row["params_M"]) * 1e6)
        assert nasbench201_flops(row["arch"]) == round(float(row["flops_M"]) * 1e6)
        small = nasbench201_flops(sample, n_classes=120, image_size=16)
        assert small == round(float(row["flops_M_in16"]) * 1e6)


# --- in NNI


def test_choices_equal_those_of_nni():
    ours, theirs = NasBench201(**SMALL).simplify(), HubNasBench201(4, 1).simplify()
    assert list(ours) == list(theirs)
    assert all(ours[label].equals(theirs[label]) for label in ours)


@pytest.mark.parametrize("sample", [*SPECIAL, *random_samples(3)])
def test_equals_nni_hub_network_with_the_same_weights(sample):
    ours = path_supernet(affine=True, track_running_stats=True)
    theirs = RandomOneShot().mutate_model(HubNasBench201(4, 1))
    for mine, hub in zip(ours.parameters(), theirs.parameters(), strict=True):
        hub.data.copy_(nn.init.normal_(mine, std=0.3))
    activate(ours, sample)
    activate(theirs, sample)
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sample", [*SPECIAL[:4], *random_samples(2)])
def test_frozen_subnet_context_and_network_agree(sample):
    supernet = path_supernet(affine=True, track_running_stats=True)
    images = torch.randn(4, 3, 8, 8)
    activate(supernet, sample)
    supernet(images)  # so that the running statistics are not the initial ones
    supernet.eval()
    expected = supernet(images)
    frozen = supernet.freeze(sample)
    assert not any(isinstance(module, LayerChoice) for module in frozen.modules())
    assert torch.equal(frozen(images), expected)
    network = nasbench201_network(sample_to_arch(sample), **SMALL).eval()
    network.load_state_dict(frozen.state_dict())
    assert torch.equal(network(images), expected)
    with model_context(sample):
        fixed = NasBench201(**SMALL, affine=True, track_running_stats=True).eval()
    fixed.load_state_dict(frozen.state_dict())
    assert torch.equal(fixed(images), expected)


def test_deepcopy_and_pickle_keep_space_and_supernet():
    sample = uniform("conv_1x1", e0_3="none")
    supernet = path_supernet()
    activate(supernet, sample)
    images = torch.randn(2, 3, 8, 8)
    expected = supernet(images)
    for clone in (copy.deepcopy(supernet), pickle.loads(pickle.dumps(supernet))):
        activate(clone, sample)
        assert torch.equal(clone(images), expected)
    space = pickle.loads(pickle.dumps(copy.deepcopy(NasBench201(**SMALL))))
    assert list(space.simplify()) == [f"cell/{edge}" for edge in NASBENCH201_EDGES]


@pytest.mark.parametrize("strategy", [DARTS, GumbelDARTS, Proxyless])
def test_differentiable_strategies_train_through_it(strategy):
    torch.manual_seed(0)
    supernet = strategy().mutate_model(NasBench201(**SMALL))
    for _ in range(4):  # Proxyless draws; some draws hold none
        for module in supernet.modules():
            if hasattr(module, "resample"):
                module.resample(memo={})
        supernet(torch.randn(2, 3, 8, 8)).square().sum().backward()
    alphas = [p.grad for name, p in supernet.named_parameters() if name.endswith("alpha")]
    assert alphas and all(grad is not None and torch.isfinite(grad).all() for grad in alphas)


def test_zero_of_none_is_no_weight_and_follows_the_dtype():
    supernet = path_supernet()
    assert not [key for key in supernet.state_dict() if "none" in key]
    activate(supernet, uniform("none", e0_3="skip_connect"))
    assert supernet.half().cells[0](torch.ones(1, 4, 2, 2, dtype=torch.half)).dtype == torch.half


def test_multiple_sampled_paths_are_summed():
    supernet = path_supernet()
    activate(supernet, uniform("none", e0_3=["none", "skip_connect"]))
    inputs = torch.randn(1, 4, 8, 8)
    assert torch.equal(supernet.cells[0](inputs), inputs)


# --- variants and arguments


def test_batch_norm_variants():
    norms = [m for m in NasBench201(**SMALL).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3 * 6 * 2 + 2 * 2 + 2
    assert all(norm.weight is None and norm.running_mean is None for norm in norms)
    tracked = path_supernet(track_running_stats=True)
    norms = [m for m in tracked.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.weight is None and norm.running_mean is not None for norm in norms)
    assert all(m.conv.bias is not None for m in tracked.modules() if hasattr(m, "conv"))
    affine = NasBench201(**SMALL, affine=True)
    assert all(m.conv.bias is None for m in affine.modules() if hasattr(m, "conv"))


def test_evaluation_uses_the_batch_or_the_running_statistics():
    sample = uniform("conv_3x3")
    images = torch.randn(4, 3, 8, 8)
    for tracked in (False, True):
        supernet = path_supernet(track_running_stats=tracked).eval()
        activate(supernet, sample)
        alone, together = supernet(images[:1]), supernet(images)[:1]
        assert torch.allclose(alone, together, atol=1e-5) is tracked


@pytest.mark.parametrize("size", [(8, 8), (4, 4), (7, 13), (32, 32)])
def test_any_image_size_works(size):
    supernet = path_supernet(in_channels=1, n_classes=3)
    activate(supernet, uniform("avg_pool_3x3", e0_1="conv_3x3"))
    assert supernet(torch.randn(2, 1, *size)).shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"channels": 0}, "Argument `channels` is expected to be a positive integer, but got 0"),
        ({"n_classes": 2.5}, "Argument `n_classes` .* got 2.5"),
        ({"operations": []}, "Argument `operations` is expected to list names"),
        ({"operations": ["nor_conv_3x3"]}, "Use NNI's names"),
        ({"operations": ["none", "none"]}, "at most once"),
        ({"operations": "none"}, "got 'none'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, match):
    with pytest.raises(ConfigurationError, match=match):
        NasBench201(**arguments)


def test_factory_builds_the_same_space_and_hides_no_module():
    space = spaces.nasbench201(**SMALL, operations=["conv_1x1"], affine=True)
    assert isinstance(space, NasBench201)
    assert count(space) == count(NasBench201(**SMALL, operations=["conv_1x1"], affine=True))
    assert importlib.import_module("nni_supernet_ext.spaces.nasbench201").NasBench201 is NasBench201


# --- architecture strings


def test_arch_string_by_hand():
    sample = {
        "cell/0_1": "avg_pool_3x3",
        "cell/0_2": "conv_1x1",
        "cell/1_2": "skip_connect",
        "cell/0_3": "none",
        "cell/1_3": "conv_3x3",
        "cell/2_3": "skip_connect",
    }
    arch = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"
    assert sample_to_arch(sample) == arch
    assert arch_to_sample(arch) == sample
    assert list(arch_to_sample(arch)) == list(sample)


def test_bare_labels_in_any_order_are_understood():
    sample = {edge: "conv_1x1" for edge in reversed(NASBENCH201_EDGES)}
    assert sample_to_arch({**sample, "0_1": "none"}).startswith("|none~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+")


def test_every_architecture_survives_the_round_trip():
    archs = set()
    for operations in itertools.product(NASBENCH201_OPERATIONS, repeat=6):
        sample = dict(zip([f"cell/{edge}" for edge in NASBENCH201_EDGES], operations, strict=True))
        arch = sample_to_arch(sample)
        assert arch_to_sample(arch) == sample
        archs.add(arch)
    assert len(archs) == 15_625


@pytest.mark.parametrize(
    ("arch", "match"),
    [
        ("", "is expected to have the form"),
        (None, "got None"),
        ("|none~0|+|none~0|none~1|", "Name every edge"),
        ("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|", "is expected to have the form"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2", "is expected to have the form"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|conv_3x3~2|", "names? operations .* 'conv_3x3'"),
    ],
)
def test_wrong_arch_strings_are_refused(arch, match):
    with pytest.raises(SpaceError, match=match):
        arch_to_sample(arch)


@pytest.mark.parametrize(
    ("sample", "match"),
    [
        ({}, "is expected to have the labels"),
        ({**uniform("none"), "width": 3}, "'width'"),
        ({**{edge: "none" for edge in NASBENCH201_EDGES[:5]}, "3_2": "none"}, "'3_2'"),
        (uniform("none", e1_3="nor_conv_3x3"), "Label `cell/1_3` .* got 'nor_conv_3x3'"),
    ],
)
def test_wrong_samples_are_refused(sample, match):
    for function in (sample_to_arch, nasbench201_params, nasbench201_flops, nasbench201_network):
        with pytest.raises(SpaceError, match=match):
            function(sample)
