"""The AttentiveNAS space: published FLOPs of both ends, weight sharing by slicing, resolutions, exact freezing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from nni_supernet_ext.callbacks import LargestSubnetRegularization
from nni_supernet_ext.core import find_extremes
from nni_supernet_ext.core.flop_count import _run
from nni_supernet_ext.errors import SpaceError
from nni_supernet_ext.objectives import InplaceDistillation
from nni_supernet_ext.paths import SandwichSampler
from nni_supernet_ext.spaces import (
    AttentiveMobileNet,
    Stage,
    attentive_mobilenet,
    attentive_mobilenet_cifar,
    attentive_mobilenet_flops,
)
from nni_supernet_ext.spaces.attentive_blocks import Resize, Shortcut, StochasticDepth
from nni_supernet_ext.spaces.attentive_mobilenet import CIFAR_STAGES
from nni_supernet_ext.testing import MethodCase, toy_evaluator, toy_supernet, train


@cache
def imagenet():
    return toy_supernet(attentive_mobilenet())


@cache
def cifar():
    return toy_supernet(attentive_mobilenet_cifar())


def ends(supernet):
    return [{label: c[i] for label, c in supernet.domain.candidates.items()} for i in (0, -1)]


def test_the_ends_have_the_published_flops():
    # The papers' 203.39 and 1,939.3 MFLOPs, counted by running the subnets with a counter that knows nothing
    # of this package.
    smallest, largest = ends(imagenet())
    image = torch.zeros(1, 3, 288, 288)
    assert round(_run(imagenet(), smallest, image) / 1e6, 2) == 203.39
    assert round(_run(imagenet(), largest, image) / 1e6, 1) == 1939.3


def test_the_arithmetic_equals_the_counter():
    flops = attentive_mobilenet_flops()
    rng = np.random.default_rng(0)
    for _ in range(3):
        sample = imagenet().domain.random(rng)
        assert flops(sample) == _run(imagenet(), sample, torch.zeros(1, 3, 288, 288))
    small = attentive_mobilenet_flops(CIFAR_STAGES, n_classes=10, stem_stride=1)
    for _ in range(10):
        sample = cifar().domain.random(rng)
        assert small(sample) == _run(cifar(), sample, torch.zeros(1, 3, 32, 32))


def test_flops_of_another_space_are_refused():
    flops, sample = attentive_mobilenet_flops(), ends(imagenet())[0]
    with pytest.raises(SpaceError, match=r"got nothing for \['width_1', .*, 'stem', 'head', 'resolution'\]\. Desc"):
        flops({})
    with pytest.raises(SpaceError, match=r"nothing for \['depth_5'\] and \{'width_1': 8, .*which it does not have"):
        flops({label: value for label, value in {**sample, **ends(cifar())[0]}.items() if label != "depth_5"})
    with pytest.raises(SpaceError, match=r"but got \{'width_8': 16\}, which it does not have"):
        flops({**sample, "width_8": 16})
    fixed = {label: value for label, value in sample.items() if label not in ("stem", "head", "resolution")}
    assert attentive_mobilenet_flops(stem_width=16, head_width=1792, resolution=192)(fixed) == flops(sample)


@pytest.mark.parametrize("depths", [(1, 3), (2, 2), ()])
def test_depths_that_are_not_consecutive_are_refused(depths):
    with pytest.raises(SpaceError, match="`depths` is expected to hold consecutive numbers, but got"):
        Stage((8,), depths, (1,), 1)


@pytest.mark.parametrize("widths", [(8,), (8, 16)])
def test_few_channels_are_squeezed_to_at_least_one(widths):
    stages = (Stage(widths, (1, 2), (1,), 1, squeeze=True, kernels=(3,)),)
    supernet = toy_supernet(AttentiveMobileNet(stages, (8,), (32,), (16,), n_classes=10))
    flops = attentive_mobilenet_flops(stages, 8, 32, 16, n_classes=10)
    for sample in ends(supernet):
        assert supernet.extract(sample)(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
        assert flops(sample) == _run(supernet, sample, torch.zeros(1, 3, 16, 16))


def test_the_ends_by_flops_are_all_smallest_and_all_largest_candidates():
    extremes = find_extremes(attentive_mobilenet_flops(), imagenet().domain)
    assert [extremes.smallest, extremes.largest] == ends(imagenet())


def test_the_table_of_choices():
    candidates = imagenet().domain.candidates
    assert candidates["width_6"] == [192, 200, 208, 216] and candidates["depth_5"] == [3, 4, 5, 6, 7, 8]
    assert candidates["expansion_2"] == [4, 5, 6] and candidates["kernel_1"] == [3, 5]
    assert candidates["stem"] == [16, 24] and candidates["head"] == [1792, 1984]
    assert candidates["resolution"] == ["192", "224", "256", "288"]
    assert not {"expansion_1", "expansion_6", "expansion_7"} & candidates.keys()


def test_subnets_are_slices_and_freeze_exactly():
    supernet, rng = cifar(), np.random.default_rng(2)
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        sample = supernet.domain.random(rng)
        network = supernet.extract(sample, verify=image)
        stem, whole = network.stem[0].weight, supernet.model.stem[0].weight
        assert torch.equal(stem, whole[: sample["stem"]])
    # A 3 x 3 kernel is the centre of the 5 x 5.
    small = {**ends(supernet)[1], "kernel_1": 3}
    block = supernet.extract(small).stages[0][0]
    whole = supernet.model.stages[0].blocks[0].filter[0].weight
    assert torch.equal(block.filter[0].weight, whole[:, :, 1:4, 1:4])


def test_the_network_sees_the_sampled_resolution():
    supernet = cifar()
    sides = []
    handle = supernet.model.stem.register_forward_pre_hook(lambda _m, inputs: sides.append(inputs[0].shape[-1]))
    for side in ("24", "28", "32"):
        supernet.activate({**ends(supernet)[0], "resolution": side})
        with torch.no_grad():
            supernet.model.eval()(torch.zeros(1, 3, 32, 32))
    handle.remove()
    assert sides == [24, 28, 32]
    image = torch.randn(1, 3, 32, 32)
    assert Resize(32)(image) is image


def test_a_block_that_keeps_its_width_is_bypassed_unchanged():
    shortcut, x, branch = Shortcut(4, 4, 1), torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)
    assert torch.equal(shortcut(x, branch), x + branch)
    pooling = Shortcut(4, 4, 2)
    expected = nn.functional.avg_pool2d(x, 2)
    assert torch.equal(pooling(x, torch.zeros(2, 4, 3, 3)), expected)
    widening = Shortcut(4, 6, 1)
    assert torch.allclose(
        widening(x, torch.zeros(2, 6, 6, 6)),
        torch.einsum("oi,nihw->nohw", widening.project.weight[:, :, 0, 0], x),
        atol=1e-6,
    )


def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = StochasticDepth(0.25)(torch.ones(4000, 2, 1, 1))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(out[:, 0], out[:, 1])
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)


def test_drop_rates_rise_towards_the_end():
    rates = [m.p for m in attentive_mobilenet().modules() if isinstance(m, StochasticDepth)]
    assert rates == sorted(rates) and 0 < rates[0] < rates[-1] < 0.2


STAGES = (Stage((8, 16), (1, 2), (1,), 1), Stage((16, 24), (1, 2), (3, 4), 2, squeeze=True))


def small_space():
    return AttentiveMobileNet(STAGES, (8, 16), (32, 48), (6, 8), n_classes=10)


def test_it_trains_by_sandwich_and_distillation(tmp_path):
    case = MethodCase("SandwichSampler", dict, space=small_space, evaluator=toy_evaluator)
    space_of = {"stages": STAGES, "n_classes": 10}
    sampler = SandwichSampler(complexity=attentive_mobilenet_flops(**space_of))
    callback = LargestSubnetRegularization()
    settings = {"paths": sampler, "objective": InplaceDistillation("adaptive_alpha"), "callbacks": [callback]}
    result = train(case, settings, tmp_path, epochs=1)
    largest = result.draws[0][0]
    assert largest["resolution"] == "8" and largest["depth_2"] == 2 and largest["expansion_2"] == 4
    assert result.strategy.module.validation.results["largest"]["val_loss"] > 0
    assert sampler.extremes.maximum == _run(result.strategy.trained, largest, torch.zeros(2, 3, 8, 8))
