"""Sandwich and distillation on spaces of NNI's hub; with CaLR and momentum separation on its transformers."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.hub.pytorch import AutoFormer, MobileNetV3Space, ProxylessNAS
from torch.utils.data import TensorDataset

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.objectives import InplaceDistillation
from nni_supernet_ext.paths import SandwichSampler
from nni_supernet_ext.testing import MethodCase, train


def autoformer():
    return AutoFormer(
        search_embed_dim=(16, 32),
        search_mlp_ratio=(1.0, 2.0),
        search_num_heads=(1, 2),
        search_depth=(1, 2),
        img_size=8,
        patch_size=4,
        num_labels=10,
    )


@pytest.mark.parametrize("step_every", ["batch", "subnet"])
def test_autoformer(tmp_path, step_every):
    sampler = SandwichSampler()
    callbacks = [ComplexityAwareLR(gamma_max=3.0)]
    if step_every == "subnet":
        callbacks.append(MomentumSeparation())
    settings = {
        "paths": sampler,
        "objective": InplaceDistillation("adaptive_alpha"),
        "callbacks": callbacks,
        "step_every": step_every,
        "validate": 0,
    }
    case = MethodCase("SandwichSampler", dict, space=autoformer)
    result = train(case, settings, tmp_path, epochs=1)
    largest, smallest = result.draws[0][0], result.draws[0][-1]
    assert sampler.extremes.exact
    assert (largest["embed_dim"], smallest["embed_dim"]) == (32, 16)
    assert (largest["depth"], smallest["depth"]) == (2, 1)


def _images(max_epochs=1, *, root=".", **trainer):
    """One batch of images, large enough for networks that halve them five times."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 64, 64, generator=generator)
    loader = DataLoader(TensorDataset(images, torch.tensor([0, 1])), batch_size=2)
    return Classification(
        num_classes=10,
        learning_rate=0.01,
        train_dataloaders=loader,
        val_dataloaders=loader,
        max_epochs=max_epochs,
        default_root_dir=str(root),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **trainer,
    )


@pytest.mark.parametrize(
    "space",
    [
        partial(ProxylessNAS, num_labels=10, base_widths=(8,) * 9, width_mult=1.0),
        partial(MobileNetV3Space, num_labels=10, base_widths=(8,) * 9),
    ],
    ids=["ProxylessNAS", "MobileNetV3Space"],
)
def test_mobile_spaces(tmp_path, space):
    sampler = SandwichSampler(n_random=1)
    case = MethodCase("SandwichSampler", dict, space=space, evaluator=_images)
    settings = {"paths": sampler, "objective": InplaceDistillation("adaptive_alpha"), "validate": 0}
    supernet = train(case, settings, tmp_path, epochs=1).strategy.trained
    ends = sampler.extremes
    sizes = []
    for sample, claimed in ((ends.smallest, ends.minimum), (ends.largest, ends.maximum)):
        # With `verify`, a subnet that computes anything else than the supernet does is refused.
        network = supernet.extract(sample, verify=torch.randn(2, 3, 64, 64))
        sizes.append(sum(parameter.numel() for parameter in network.parameters()))
        assert sizes[-1] == claimed
    assert sizes[0] < sizes[1]
