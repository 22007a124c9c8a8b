"""Every kind of NNI Lightning evaluator, a data module, and Lightning's own way to resume."""

from __future__ import annotations

import functools

import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Regression, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import TensorDataset

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy
from nni_supernet_ext.testing import MethodCase, ToySpace, toy_data, toy_evaluator
from nni_supernet_ext.testing.toys import ToyModule
from nni_supernet_ext.testing.training import differing, train

TRAINER = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def _run(space, evaluator, strategy):
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return strategy


def test_regression(tmp_path):
    images = torch.randn(32, 3, 8, 8)
    targets = images.mean(dim=(1, 2, 3)).unsqueeze(1).repeat(1, 10)
    data = TensorDataset(images, targets)
    evaluator = Regression(
        learning_rate=0.05,
        optimizer=functools.partial(torch.optim.SGD, momentum=0.9),
        train_dataloaders=DataLoader(data, batch_size=8),
        val_dataloaders=DataLoader(data, batch_size=8),
        max_epochs=3,
        default_root_dir=str(tmp_path),
        **TRAINER,
    )
    space = ToySpace()
    strategy = _run(space, evaluator, SupernetStrategy(callbacks=[ComplexityAwareLR(), MomentumSeparation("op")]))
    assert set(strategy.module.validation.results["largest"]) == {"val_loss", "val_mse"}
    search = SupernetEvolution(population=3, cycles=1, metric="val_mse", mode="min", progress=False)
    _run(space, evaluator, search)
    assert search.best.metrics["val_mse"] == min(s.metrics["val_mse"] for s in search.history)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(toy_data(32), batch_size=16)

    def val_dataloader(self):
        return DataLoader(toy_data(16, seed=5), batch_size=16)


def test_data_module(tmp_path):
    trainer = Trainer(max_epochs=2, default_root_dir=str(tmp_path), **TRAINER)
    module = ToyModule(learning_rate=0.05, optimizer=torch.optim.SGD, num_classes=10)
    evaluator = Lightning(module, trainer, datamodule=Data())
    space = ToySpace()
    strategy = _run(space, evaluator, SupernetStrategy())
    assert strategy.module.state.iteration == 4
    assert "val_acc" in strategy.module.validation.results["smallest"]
    search = _run(space, evaluator, SupernetEvolution(population=3, cycles=0, progress=False))
    assert len(search.history) == 3


def test_lightnings_checkpoint_path(tmp_path):
    from nni_supernet_ext.testing.stop import StopAfter

    case = MethodCase("a", dict)
    folder = tmp_path / "first"
    train(case, {"callbacks": [StopAfter(1)], "checkpoint_dir": folder}, tmp_path)

    def resumed(**arguments):
        made = toy_evaluator(**arguments)
        made.fit_kwargs["ckpt_path"] = str(folder / "last.ckpt")
        return made

    second = train(MethodCase("a", dict, evaluator=resumed), {}, tmp_path)
    assert len(second.draws) == 4
    assert not differing(second.weights, train(case, {}, tmp_path).weights)
