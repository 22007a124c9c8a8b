"""NNI's own hub spaces train as supernets, and give subnets away or say why not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch import DARTS, AutoFormer, MobileNetV3Space, NasBench201, ProxylessNAS, ShuffleNetSpace
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import TensorDataset

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.core import SubnetEvaluator
from nni_supernet_ext.errors import SpaceError
from nni_supernet_ext.strategies import SupernetStrategy


def _autoformer():
    return AutoFormer(
        search_embed_dim=(16, 24),
        search_mlp_ratio=(2.0, 3.0),
        search_num_heads=(2, 3),
        search_depth=(2, 3),
        qkv_bias=True,
        img_size=32,
        patch_size=8,
        num_labels=10,
    )


SPACES = {
    "NasBench201": (lambda: NasBench201(stem_out_channels=4, num_modules_per_stack=1, num_labels=10), 16, True),
    "ProxylessNAS": (lambda: ProxylessNAS(num_labels=10, base_widths=(8,) * 9, width_mult=1.0), 64, True),
    "MobileNetV3": (lambda: MobileNetV3Space(num_labels=10), 64, True),
    "ShuffleNet": (lambda: ShuffleNetSpace(num_labels=10), 64, True),
    "AutoFormer": (_autoformer, 32, True),
    "DARTS": (lambda: DARTS(width=4, num_cells=3, dataset="cifar"), 32, False),
}


class _Module(ClassificationModule):
    """NNI's module, for spaces that return auxiliary outputs too."""

    def forward(self, x):
        output = self.model(x)
        return output[0] if isinstance(output, tuple) else output


def _train(space, size, root):
    def loader(n):
        return DataLoader(TensorDataset(torch.randn(n, 3, size, size), torch.arange(n) % 10), batch_size=4)

    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=str(root),
    )
    module = _Module(learning_rate=0.01, optimizer=torch.optim.Adam, num_classes=10)
    evaluator = Lightning(module, trainer, train_dataloaders=loader(8), val_dataloaders=loader(4))
    callbacks = [ComplexityAwareLR("parameters"), MomentumSeparation()]
    strategy = SupernetStrategy(callbacks=callbacks, validate=0, recalibrate_batches=1)
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return strategy, evaluator


@pytest.mark.parametrize("name", SPACES)
def test_trains_evaluates_and_extracts(name, tmp_path):
    make, size, keeps_weights = SPACES[name]
    torch.manual_seed(0)
    strategy, evaluator = _train(make(), size, tmp_path)
    supernet = strategy.trained
    assert strategy.module.state.iteration == 2
    sample = supernet.domain.random(np.random.default_rng(0))
    subnets = SubnetEvaluator(supernet, evaluator.module, evaluator.val_dataloaders)
    assert 0 <= subnets.evaluate(sample)["val_acc"] <= 1
    batch = torch.randn(2, 3, size, size)
    if keeps_weights:
        network = supernet.extract(sample, verify=batch)
        counted = strategy.plan.callbacks[0]._measure(sample)
        assert counted == sum(p.numel() for p in network.parameters())
    else:
        with pytest.raises(SpaceError, match=r"inherited weights.*new weights.*in place"):
            supernet.extract(sample)
