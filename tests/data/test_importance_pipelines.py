"""Data importance sampling in users' own pipelines: labels of other losses, loaders that are loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning, RegressionModule
from pytorch_lightning import LightningDataModule
from torch.utils.data import Sampler

from nni_supernet_ext.data import ImportanceDataSampler
from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.functional import gradient_norm_bound
from nni_supernet_ext.testing import MethodCase
from nni_supernet_ext.testing.toys import toy_data, toy_evaluator
from nni_supernet_ext.testing.training import train
from tests.data.test_importance_data import EpochOrder, Numbered, Oftener, Watch, _case, _prepared

SEVERAL = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


@pytest.mark.parametrize("targets", [SEVERAL, 2.5 * torch.ones(2, 1), torch.tensor([[1.5, -0.5, 0.0]] * 2)])
def test_targets_of_other_losses_have_no_bound(targets: torch.Tensor) -> None:
    """The softmax minus several labels at once, or minus a regression's value, is the gradient of no such loss."""
    with pytest.raises(DataError, match=r"each row sums to 1, but got .* no such bound"):
        gradient_norm_bound(torch.zeros(2, targets.shape[1]), targets)
    soft = torch.tensor([[0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]]).half()  # whose sums are not quite 1
    logits = torch.randn(2, 3, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(logits, soft.float(), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient_norm_bound(logits, soft), gradient.norm(dim=1), atol=1e-3, rtol=0.0)


def test_an_accelerators_targets_are_looked_at_when_the_epoch_ends() -> None:
    data = _prepared(6, tau=0.5)
    data._soft = SEVERAL
    with pytest.raises(DataError, match="each row sums to 1"):
        data._gather()


class Regress(RegressionModule):
    """NNI's regression, of the first output."""


def test_a_regression_is_refused_before_it_trains(tmp_path: Path) -> None:
    def evaluator(max_epochs: int = 1, *, root: Any = ".", **arguments: Any) -> Lightning:
        made = toy_evaluator(max_epochs, root=root, **arguments)
        return Lightning(
            Regress(),
            made.trainer,
            train_dataloaders=DataLoader(toy_data(16), batch_size=8),
            val_dataloaders=DataLoader(toy_data(16), batch_size=8),
        )

    case = MethodCase("case", dict, evaluator=evaluator)
    with pytest.raises(ConfigurationError, match="expected to classify, but got NNI's Regression"):
        train(case, {"data": ImportanceDataSampler()}, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"labels": lambda batch: batch[1].tolist()},
            "`labels` is expected to return a tensor, but got a list of 16",
        ),
        ({"labels": lambda batch: batch[1].numpy()}, "`labels` is expected to return a tensor, but got a ndarray"),
        ({"logits": lambda output: None}, "`logits` is expected to return a tensor, but got a NoneType"),
    ],
)
def test_functions_that_return_no_tensor(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        train(_case(Numbered()), {"data": ImportanceDataSampler(**arguments)}, tmp_path, epochs=1)


class HoldsBack(EpochOrder):
    """Never hand out the last ten examples."""

    def __len__(self) -> int:
        return self.size - 10

    def __iter__(self) -> Any:
        yield from torch.randperm(self.size - 10).tolist()


def _reloading(sampler: type[Sampler[int]]) -> MethodCase:
    class Reloaded(LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader(Numbered(), batch_size=16, sampler=sampler(40))

        def val_dataloader(self) -> Any:
            return DataLoader(toy_data(8), batch_size=8)

    def evaluator(max_epochs: int = 2, *, root: Any = ".", **arguments: Any) -> Lightning:
        made = toy_evaluator(max_epochs, root=root, reload_dataloaders_every_n_epochs=1, **arguments)
        return Lightning(made.module, made.trainer, datamodule=Reloaded())

    return MethodCase("case", dict, evaluator=evaluator)


def test_a_loader_that_is_loaded_again_keeps_the_samplers_examples(tmp_path: Path) -> None:
    data = ImportanceDataSampler(tau=0.7)
    watch = Watch(data)
    train(_reloading(HoldsBack), {"data": data, "callbacks": [watch]}, tmp_path, epochs=3)
    epochs = [watch.batches[start] + watch.batches[start + 1] for start in (0, 2, 4)]
    assert [len(set(epoch)) < 30 for epoch in epochs] == [False, True, True], "with replacement from the second on"
    assert {index for epoch in epochs for index in epoch} <= set(range(30))


def test_a_loader_that_is_loaded_again_decides_no_frequencies(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="equally often, but got Oftener"):
        train(_reloading(Oftener), {"data": ImportanceDataSampler(0.5)}, tmp_path, epochs=2)


@pytest.mark.parametrize("wrong", [-1, 40, "7"])
def test_a_sampler_of_other_things_than_indices_is_named(tmp_path: Path, wrong: Any) -> None:
    case = _case(Numbered(), sampler=[0, 1, wrong])
    with pytest.raises(DataError, match=f"integers from 0 to 39, but got {wrong!r}"):
        train(case, {"data": ImportanceDataSampler(0.5)}, tmp_path, epochs=1)
