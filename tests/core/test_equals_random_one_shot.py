"""With all slots at their defaults, training equals NNI's RandomOneShot bit for bit on the same draws."""

from __future__ import annotations

import functools

import nni
import pytest
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import (
    Cell,
    InputChoice,
    LayerChoice,
    ModelSpace,
    MutableConv2d,
    MutableLinear,
    Repeat,
)
from nni.nas.oneshot.pytorch.sampling import RandomSamplingLightningModule
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import RandomOneShot
from torch import nn

from nni_supernet_ext.spaces import nasbench201
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import toy_data
from nni_supernet_ext.testing.training import Trace, differing


class EveryPrimitive(ModelSpace):
    """LayerChoice, InputChoice, Repeat and value choices in mutable layers."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [4, 6])
        self.stem = MutableConv2d(3, width, nni.choice("kernel", [1, 3]), padding=0, bias=False)
        self.left = LayerChoice([nn.ReLU(), nn.Tanh()], label="left")
        self.join = InputChoice(2, n_chosen=1, label="join")
        self.blocks = Repeat(lambda i: MutableConv2d(width, width, 1), nni.choice("depth", [1, 2, 3]))
        self.head = MutableLinear(width, 10)

    def forward(self, x):
        x = self.stem(x)
        x = self.blocks(self.join([self.left(x), x]))
        return self.head(x.mean(dim=(2, 3)))


class CellSpace(ModelSpace):
    """NNI's own Cell."""

    def __init__(self) -> None:
        super().__init__()
        operations = {"conv": nn.Conv2d(3, 3, 3, padding=1), "skip": nn.Identity()}
        self.cell = Cell(operations, num_nodes=2, num_ops_per_node=1, num_predecessors=1, label="cell")
        self.head = nn.Linear(6, 10)

    def forward(self, x):
        return self.head(self.cell(x).mean(dim=(2, 3)))


def _evaluator(root, precision="32-true"):
    generator = torch.Generator().manual_seed(7)
    return Classification(
        learning_rate=0.05,
        weight_decay=1e-3,
        optimizer=functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        train_dataloaders=DataLoader(toy_data(48), batch_size=16, shuffle=True, generator=generator),
        val_dataloaders=DataLoader(toy_data(16), batch_size=16),
        num_classes=10,
        max_epochs=3,
        logger=False,
        accelerator="cpu",
        precision=precision,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=str(root),
    )


def _train(strategy, make_space, root, precision):
    torch.manual_seed(0)
    space = make_space()
    strategy(RawFormatModelSpace(space, _evaluator(root, precision)), SequentialExecutionEngine())
    return space.state_dict()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    "make_space",
    [EveryPrimitive, CellSpace, lambda: nasbench201(channels=4, cells_per_stage=1)],
    ids=["primitives", "cell", "nasbench201"],
)
def test_default_strategy_equals_random_one_shot(make_space, precision, tmp_path, monkeypatch):
    trace = Trace()
    ours = _train(SupernetStrategy(callbacks=[trace], validate=0), make_space, tmp_path, precision)
    pending = [draws[0] for draws in trace.draws]
    assert len({str(sample) for sample in pending}) > 1

    original = RandomSamplingLightningModule.resample

    def impose(module):
        if not module.trainer.training or module.trainer.validating:
            return original(module)
        sample = pending.pop(0)
        for part in module.supernet_modules():
            part.resample(memo=dict(sample))
        return sample

    monkeypatch.setattr(RandomSamplingLightningModule, "resample", impose)
    theirs = _train(RandomOneShot(), make_space, tmp_path, precision)
    assert not pending
    assert differing(ours, theirs) == []
