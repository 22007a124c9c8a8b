"""What looks at the data before a training, or without one, finds a data module's as the training would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import TensorDataset

from nni_supernet_ext.callbacks import ComplexityAwareLR
from nni_supernet_ext.data import ImportanceDataSampler
from nni_supernet_ext.strategies import ChoiceSplit, FewShotStrategy, GradientSplit, SupernetStrategy
from nni_supernet_ext.testing import ToyCellSpace, toy_data, toy_evaluator, toy_supernet
from nni_supernet_ext.weights import WeightSplitting


class Scaled(pl.LightningDataModule):
    """Give images a hundred times too large once it is set up, and scale them once they are where they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.data: Any = None
        self.set_up = 0

    def setup(self, stage: str) -> None:
        self.data = [toy_data(64), toy_data(32, seed=5)]
        self.set_up += 1

    def train_dataloader(self) -> Any:
        return self._loader(0)

    def val_dataloader(self) -> Any:
        return self._loader(1)

    def _loader(self, index: int) -> Any:
        images, labels = self.data[index].tensors
        return DataLoader(TensorDataset(images * 128, labels), batch_size=16)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert not self.trainer.sanity_checking
        return batch[0] / 128, batch[1]


def _evaluator(root: Path, as_module: bool) -> Any:
    made = toy_evaluator(1, root=root)
    data = Scaled()
    if as_module:
        return Lightning(made.module, made.trainer, datamodule=data)
    data.setup("fit")
    made.module.on_after_batch_transfer = lambda batch, _: (batch[0] / 128, batch[1])
    return Lightning(made.module, made.trainer, data.train_dataloader(), data.val_dataloader())


def _run(strategy: Any, root: Path, as_module: bool = True) -> Any:
    evaluator = _evaluator(root, as_module)
    strategy(RawFormatModelSpace(toy_supernet(ToyCellSpace()).model, evaluator), SequentialExecutionEngine())
    return evaluator


def _graph(root: Path) -> Any:
    return SupernetStrategy(weights=WeightSplitting("graph", milestones=[0.5]), checkpoint_dir=root)


def _bounds(root: Path) -> Any:
    base = SupernetStrategy(callbacks=[ComplexityAwareLR("flops")], checkpoint_dir=root)
    return FewShotStrategy(base, [ChoiceSplit("edge_0", parts=2)])


def _weights(strategy: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in strategy.trained.model.state_dict().items()}


@pytest.mark.parametrize("make", [_graph, _bounds])
def test_a_data_module_is_set_up_before_the_training_looks_at_it(tmp_path: Path, make: Any) -> None:
    found = []
    for as_module in (True, False):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            strategy = make(tmp_path / str(as_module))
            _run(strategy, tmp_path, as_module)
        found.append(_weights(strategy))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_split_that_is_decided_after_a_resumption_sees_the_data_of_the_training(tmp_path: Path) -> None:
    def decided() -> str:
        rule = GradientSplit(batches=1, subnets=1)
        _run(FewShotStrategy(SupernetStrategy(checkpoint_dir=tmp_path), [rule], warmup_epochs=1, only=[]), tmp_path)
        return (tmp_path / "split.json").read_text(encoding="utf-8")

    before = decided()
    (tmp_path / "split.json").unlink()
    assert decided() == before


def test_a_training_that_needs_no_look_sets_a_data_module_up_once(tmp_path: Path) -> None:
    evaluator = _run(SupernetStrategy(data=ImportanceDataSampler(), checkpoint_dir=tmp_path), tmp_path)
    assert evaluator.datamodule.set_up == 1
