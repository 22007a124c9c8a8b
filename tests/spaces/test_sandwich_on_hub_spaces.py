"""Sandwich, distillation, CaLR and momentum separation on a transformer space of NNI's hub."""

from __future__ import annotations

import pytest
from nni.nas.hub.pytorch import AutoFormer

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
