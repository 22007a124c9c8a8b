"""The data of a search: prepared once, and there for what needs them."""

from __future__ import annotations

from pathlib import Path

import cloudpickle
import nni
import pytest
import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import TensorDataset

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy
from nni_supernet_ext.strategies.evaluation_data import refuse_hooks_of_data
from nni_supernet_ext.testing import ToyCellSpace, toy_data, toy_evaluator, toy_supernet
from nni_supernet_ext.testing.toys import ToyModule


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


class TwoLoaders(ToyModule):
    """Train on the batches of two loaders together."""

    def training_step(self, batch, batch_idx):
        images, labels = (torch.cat(parts) for parts in zip(batch["a"], batch["b"], strict=True))
        return super().training_step((images, labels), batch_idx)


def test_statistics_from_several_training_loaders(tmp_path: Path) -> None:
    """They are those of the two joined batch by batch."""
    images, labels = toy_data(64).tensors
    halves = {
        name: DataLoader(TensorDataset(images[part], labels[part]), batch_size=16)
        for name, part in (("a", slice(0, 32)), ("b", slice(32, 64)))
    }
    order = torch.arange(64).view(2, 2, 16).transpose(0, 1).flatten()
    joined = DataLoader(TensorDataset(images[order], labels[order]), batch_size=32)
    histories = []
    for module, loaders in ((TwoLoaders(num_classes=10), halves), (ToyModule(num_classes=10), joined)):
        given = toy_evaluator(root=tmp_path)
        evaluator = Lightning(
            module, given.trainer, train_dataloaders=loaders, val_dataloaders=given.val_dataloaders
        )
        histories.append(search(toy_supernet().model, evaluator).history)
    assert histories[0] == histories[1]


@nni.trace
class Scaled(pl.LightningDataModule):
    """Give images a hundred times too large, and scale them once they are where they are used."""

    def train_dataloader(self):
        return self._loader(0, 64)

    def val_dataloader(self):
        return self._loader(5, 32)

    def _loader(self, seed: int, size: int):
        images, labels = toy_data(size, seed=seed).tensors
        return DataLoader(TensorDataset(images * 128, labels), batch_size=16)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        assert not self.trainer.sanity_checking
        return batch[0] / 128, batch[1]


@pytest.mark.parametrize("epochs", [0, 2])
def test_transfer_hooks_of_a_data_module_are_those_of_the_search_and_of_validation(tmp_path, epochs) -> None:
    def trained(scaled: bool):
        given = toy_evaluator(max(epochs, 1), root=tmp_path)
        data = Scaled()
        loaders = {"train_dataloaders": data.train_dataloader(), "val_dataloaders": data.val_dataloader()}
        if not scaled:
            given.module.on_after_batch_transfer = lambda batch, _: (batch[0] / 128, batch[1])
        evaluator = Lightning(given.module, given.trainer, **({"datamodule": data} if scaled else loaders))
        model = toy_supernet().model
        if epochs:
            strategy = SupernetStrategy(validate=1, recalibrate_batches=2, seed=0)
            strategy(RawFormatModelSpace(model, evaluator), SequentialExecutionEngine())
        found = search(model, evaluator, count_flops=True, recalibrate_batches=2).history
        return found, {name: float(value) for name, value in evaluator.trainer.callback_metrics.items()}

    assert trained(scaled=True) == trained(scaled=False)


def test_transfer_hooks_of_a_data_module_are_refused_where_trials_would_not_have_them(tmp_path) -> None:
    given = toy_evaluator(root=tmp_path)
    refuse_hooks_of_data(given)
    refuse_hooks_of_data(Lightning(given.module, given.trainer, datamodule=Files(tmp_path / "calls")))
    with pytest.raises(ConfigurationError, match=r"got \['on_after_batch_transfer'\] of its own.*this process"):
        refuse_hooks_of_data(Lightning(given.module, given.trainer, datamodule=Scaled()))


@pytest.mark.parametrize(("precision", "expected"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)])
def test_a_search_evaluates_in_the_precision_of_the_trainer(tmp_path, precision, expected) -> None:
    supernet, seen = toy_supernet(), set()
    supernet.model.head.register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    evaluator = toy_evaluator(root=tmp_path, precision=precision)
    made = search(supernet.model, evaluator, recalibrate_batches=1)
    assert seen == {expected}
    evaluator.trainer.validate(_shown(evaluator, made.best_network()), evaluator.val_dataloaders, verbose=False)
    shown = {name: float(value) for name, value in evaluator.trainer.callback_metrics.items()}
    assert shown == pytest.approx(made.best.metrics, abs=1e-6)
    assert cloudpickle.loads(cloudpickle.dumps(evaluator.trainer.precision_plugin))  # goes to trials elsewhere


def _shown(evaluator, network):
    evaluator.module.set_model(network)
    return evaluator.module
