"""A subnet taken out of its supernet: the same outputs, precision, trainability and modes."""

from __future__ import annotations

from typing import Any

import nni
import pytest
import torch
from nni.nas.nn.pytorch import (
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLinear,
    MutableMultiheadAttention,
)
from torch import nn

from nni_supernet_ext.core import SubnetEvaluator, Supernet
from nni_supernet_ext.core.complexity import resolve_complexity
from nni_supernet_ext.errors import SpaceError
from nni_supernet_ext.testing import toy_evaluator, toy_supernet

IMAGES = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(0))


class Elastic(ModelSpace):
    """Have a convolution of mutable kernel and width, and a batch norm of mutable width."""

    def __init__(self, norm: dict[str, Any] | None = None, **settings: Any) -> None:
        super().__init__()
        width, kernel = nni.choice("width", [2, 4]), nni.choice("kernel", [1, 3, 5])
        self.stem = MutableConv2d(3, width, kernel, **{"padding": kernel // 2, **settings})
        self.norm = MutableBatchNorm2d(width, **(norm or {}))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.stem(x))


@pytest.fixture
def supernet() -> Supernet:
    return toy_supernet(Elastic())


SAMPLE = {"width": 2, "kernel": 3}


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("settings", [{}, {"padding": "same", "dilation": 2}, {"padding": "valid"}, {"padding": 2}])
def test_every_padding_is_that_of_the_chosen_kernel(mode: str, settings: dict[str, Any]) -> None:
    supernet = toy_supernet(Elastic(padding_mode=mode, **settings))
    for kernel in (5, 1, 3):
        sample = {"width": 2, "kernel": kernel}
        supernet.activate(sample)
        supernet.model.eval()
        plain = nn.Conv2d(3, 2, kernel, padding_mode=mode, **{"padding": kernel // 2, **settings})
        cut = slice((5 - kernel) // 2, (5 + kernel) // 2)
        plain.load_state_dict(
            {"weight": supernet.model.stem.weight[:2, :, cut, cut], "bias": supernet.model.stem.bias[:2]}
        )
        with torch.no_grad():
            assert torch.equal(supernet.model.stem(IMAGES), plain(IMAGES))
            assert torch.equal(supernet.model(IMAGES), supernet.extract(sample).eval()(IMAGES))


def test_a_batch_norm_of_mutable_width_needs_no_weights() -> None:
    supernet = toy_supernet(Elastic(norm={"affine": False}))
    supernet.activate(SAMPLE)
    features = torch.randn(4, 2, 5, 5)
    expected = nn.BatchNorm2d(2, affine=False)
    assert torch.equal(supernet.model.norm(features), expected(features))
    network = supernet.extract(SAMPLE)
    assert torch.equal(network.norm.running_mean, expected.running_mean)
    assert not list(network.norm.parameters())


def test_a_batch_norm_of_mutable_width_averages_over_all_batches_without_momentum() -> None:
    norm = toy_supernet(Elastic(norm={"momentum": None})).model.norm.train()
    norm.sampling_policy._sampled = {"num_features": 2}
    expected = nn.BatchNorm2d(2, momentum=None)
    for features in torch.randn(3, 4, 2, 5, 5):
        assert torch.equal(norm(features), expected(features))
    assert torch.equal(norm.running_mean[:2], expected.running_mean)
    assert torch.equal(norm.running_var[:2], expected.running_var)
    assert torch.equal(norm.eval()(features), expected.eval()(features))


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_the_precision_is_the_supernets(supernet: Supernet, precision: torch.dtype) -> None:
    supernet.model.to(precision).eval()
    network = supernet.extract(SAMPLE)
    assert {value.dtype for value in network.state_dict().values() if value.is_floating_point()} == {precision}
    supernet.activate(SAMPLE)
    with torch.no_grad():
        assert torch.equal(network(IMAGES.to(precision)), supernet.model(IMAGES.to(precision)))


def test_what_is_frozen_stays_frozen(supernet: Supernet) -> None:
    supernet.model.stem.weight.requires_grad_(False)
    network = supernet.extract(SAMPLE)
    trained = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    assert trained == {"stem.weight": False, "stem.bias": True, "norm.weight": True, "norm.bias": True}
    assert supernet.model.stem.bias.requires_grad


def test_modes_are_the_supernets(supernet: Supernet) -> None:
    supernet.model.eval()
    assert not any(module.training for module in supernet.extract(SAMPLE).modules())
    supernet.model.train()
    supernet.model.norm.eval()
    network = supernet.extract(SAMPLE)
    assert (network.training, network.stem.training, network.norm.training) == (True, True, False)


class Attention(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [8, 16])
        self.embed = MutableLinear(6, width)
        self.attend = MutableMultiheadAttention(width, nni.choice("heads", [2, 4]), batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.attend(x, x, x, need_weights=False)[0]


def test_attention_is_verified_up_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    supernet, tokens = toy_supernet(Attention()), torch.randn(4, 5, 6)
    for sample in supernet.domain.grid():
        supernet.extract(sample, verify=tokens)
    stock = supernet.model.freeze

    def with_another_weight(sample: dict[str, Any]) -> nn.Module:
        frozen = stock(sample)
        frozen.attend.out_proj.weight.data[0, 0] += 0.01
        return frozen

    monkeypatch.setattr(supernet.model, "freeze", with_another_weight)
    with pytest.raises(SpaceError, match="another output"):
        supernet.extract(sample, verify=tokens)


def test_modes_chosen_for_single_modules_outlast_a_look_at_the_supernet(supernet: Supernet) -> None:
    model, module = supernet.model, toy_evaluator().module
    model.norm.eval()
    module.set_model(model)
    subnets = SubnetEvaluator(supernet, module, [(IMAGES, torch.tensor([0, 1, 2, 3]))], calibration=None)
    looks = (
        lambda: supernet.extract(SAMPLE, verify=IMAGES),
        lambda: resolve_complexity("flops", supernet, IMAGES)(SAMPLE),
        lambda: subnets.extract(SAMPLE),
    )
    for look in looks:
        look()
        assert (model.training, model.stem.training, model.norm.training) == (True, True, False)
