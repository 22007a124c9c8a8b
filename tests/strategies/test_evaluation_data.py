"""The data of a search: prepared once, and there for what needs them."""

from __future__ import annotations

from pathlib import Path

import nni
import pytest
import pytorch_lightning as pl
from nni.nas.evaluator.pytorch import DataLoader, Lightning
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy
from nni_supernet_ext.testing import ToyCellSpace, toy_data, toy_evaluator, toy_supernet


@nni.trace
class Files(pl.LightningDataModule):
    """Data that are there only once they were prepared."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def prepare_data(self) -> None:
        self._note("prepare")

    def setup(self, stage: str) -> None:
        assert self.path.exists(), "not prepared"
        self._note("setup")

    def train_dataloader(self):
        return DataLoader(toy_data(32), batch_size=16)

    def val_dataloader(self):
        return DataLoader(toy_data(16, seed=5), batch_size=16)

    def _note(self, call: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{call}\n")


def search(model, evaluator, **settings) -> SupernetEvolution:
    made = SupernetEvolution(population=2, cycles=0, record=False, progress=False, **settings)
    made(RawFormatModelSpace(model, evaluator), SequentialExecutionEngine())
    return made


def test_a_data_module_is_prepared_and_set_up_once(tmp_path: Path) -> None:
    given = toy_evaluator(root=tmp_path)
    evaluator = Lightning(given.module, given.trainer, datamodule=Files(tmp_path / "calls"))
    assert len(search(toy_supernet().model, evaluator, count_flops=True).history) == 2
    assert (tmp_path / "calls").read_text().split() == ["prepare", "setup"]


def test_statistics_without_training_data_are_refused(tmp_path: Path) -> None:
    evaluator = toy_evaluator(root=tmp_path)
    evaluator.train_dataloaders = None
    with pytest.raises(ConfigurationError, match=r"`train_dataloaders`.*`recalibrate_batches=20`"):
        search(toy_supernet().model, evaluator)
    assert search(toy_supernet().model, evaluator, recalibrate_batches=0).history
    without_statistics = SupernetStrategy().mutate_model(ToyCellSpace())
    assert search(without_statistics, evaluator).history


@pytest.mark.parametrize("given", [list, tuple, lambda loaders: dict(enumerate(loaders))])
def test_one_loader_in_a_list_is_used_and_several_are_refused(tmp_path: Path, given) -> None:
    plain, listed = toy_evaluator(root=tmp_path), toy_evaluator(root=tmp_path)
    listed.val_dataloaders = given([listed.val_dataloaders])
    listed.train_dataloaders = given([listed.train_dataloaders])
    expected = search(toy_supernet().model, plain, count_flops=True).history
    assert search(toy_supernet().model, listed, count_flops=True).history == expected
    listed.val_dataloaders = given([plain.val_dataloaders, plain.val_dataloaders])
    with pytest.raises(ConfigurationError, match=r"`val_dataloaders` .* one loader for a search, but got 2"):
        search(toy_supernet().model, listed)
