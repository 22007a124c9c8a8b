"""Files of finished sub-supernets and decided splits: read back as they were, refused where something differs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import nni
import pytest
import pytorch_lightning as pl
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import ModelSpace, MutableConv2d
from nni.nas.space import RawFormatModelSpace
from torch import nn

from nni_supernet_ext.callbacks import ComplexityAwareLR
from nni_supernet_ext.core import Supernet
from nni_supernet_ext.errors import CheckpointError
from nni_supernet_ext.strategies import (
    ChoiceSplit,
    FewShotStrategy,
    GradientSplit,
    SubSupernetWeights,
    SupernetStrategy,
)
from nni_supernet_ext.testing import ToyCellSpace, toy_evaluator, toy_supernet

GRADIENT = {"splits": [GradientSplit(["kernel"], batches=1, subnets=1)], "warmup_epochs": 1}
OPS = {"splits": [ChoiceSplit("edge_0", parts=2)]}


class Shapes(ModelSpace):
    """Choose the shape of a kernel, a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MutableConv2d(3, 10, nni.choice("kernel", [(1, 3), (3, 1), (3, 3)]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stem(x).mean(dim=(2, 3))


class Counting(pl.Callback):
    """Count trainings of all copies."""

    trainings = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        Counting.trainings += 1


def run(
    folder: Path, space: Any = ToyCellSpace, evaluator: Any = None, base: Any = None, **few_shot: Any
) -> FewShotStrategy:
    settings = {"validate": 1, "recalibrate_batches": 0, "record": False, "checkpoint_dir": folder / "files"}
    strategy = FewShotStrategy(SupernetStrategy(**settings, **(base or {})), **few_shot)
    evaluator = evaluator or toy_evaluator(1, root=folder)
    evaluator.trainer.callbacks.append(Counting())
    strategy(RawFormatModelSpace(space(), evaluator), SequentialExecutionEngine())
    return strategy


def trained_again(folder: Path, **arguments: Any) -> tuple[FewShotStrategy, FewShotStrategy, int]:
    """Return a run, the same run once more, and how many trainings that made."""
    first = run(folder, **arguments)
    before = Counting.trainings
    return first, run(folder, **arguments), Counting.trainings - before


@pytest.mark.parametrize("arguments", [{"splits": [ChoiceSplit("kernel")]}, GRADIENT], ids=["choice", "gradient"])
def test_candidates_that_are_tuples_are_read_back(tmp_path: Path, arguments: Any) -> None:
    first, again, trainings = trained_again(tmp_path, space=Shapes, **arguments)
    loaded = SubSupernetWeights.load(tmp_path / "files")
    assert trainings == 0 and again.regions == first.regions
    for kernel in [(1, 3), (3, 1), (3, 3)]:
        owners = [weights.owner({"kernel": kernel}).index for weights in (first.weights, again.weights, loaded)]
        assert len(set(owners)) == 1
    for model in again.list_models(limit=None):
        model.executable_model()
    assert again.weights.digest(again.trained) == first.weights.digest(first.trained)


@pytest.mark.parametrize(
    ("evaluator", "base", "message"),
    [
        ({"learning_rate": 0.5}, {}, r"`lr` of the optimizer: saved with 0\.05, resumed with 0\.5"),
        ({"schedule": lambda step: 1.0}, {}, r"`schedulers`: saved with \[\], resumed with \['LambdaLR'\]"),
        ({}, {"gradient_clip_val": 1.0}, r"`gradient_clip_val`: saved with None, resumed with 1\.0"),
        ({}, {"set_to_none": False}, "`set_to_none`"),
    ],
)
def test_finished_parts_are_not_taken_for_those_of_other_settings(
    tmp_path: Path, evaluator: Any, base: Any, message: str
) -> None:
    run(tmp_path, only=[0], **OPS)
    with pytest.raises(CheckpointError, match=rf"part-0\.pt.*another {message}.*another `checkpoint_dir`"):
        run(tmp_path, evaluator=toy_evaluator(1, root=tmp_path, **evaluator), base=base, **OPS)
    again = run(tmp_path, **OPS)
    assert list(again.part_callbacks) == [1]


def test_finished_parts_are_not_taken_for_those_of_other_arguments(tmp_path: Path) -> None:
    run(tmp_path, base={"callbacks": [ComplexityAwareLR(gamma_max=2)]}, **OPS)
    with pytest.raises(CheckpointError, match="another `gamma_max of ComplexityAwareLR`"):
        run(tmp_path, base={"callbacks": [ComplexityAwareLR(gamma_max=4)]}, **OPS)
    with pytest.raises(CheckpointError, match="another `bounds of ComplexityAwareLR`"):
        run(tmp_path, base={"callbacks": [ComplexityAwareLR(gamma_max=2)]}, complexity_bounds="part", **OPS)


def test_an_optimizer_that_only_a_training_can_make_stands_in_no_one_s_way(tmp_path: Path) -> None:
    def evaluator() -> Any:
        made = toy_evaluator(1, root=tmp_path)
        made.module.__class__ = Cycled
        return made

    run(tmp_path, evaluator=evaluator(), **OPS)
    before = Counting.trainings
    run(tmp_path, evaluator=evaluator(), **OPS)
    assert Counting.trainings == before


class Cycled(type(toy_evaluator().module)):
    """Schedule over as many steps as the trainer, once it trains, says there will be."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        steps = int(self.trainer.estimated_stepping_batches)
        return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)]


def test_a_split_that_another_rule_has_decided_is_refused(tmp_path: Path) -> None:
    def arguments(**rule: Any) -> dict[str, Any]:
        return {"splits": [GradientSplit(batches=1, subnets=1, **rule)], "warmup_epochs": 1, "only": []}

    run(tmp_path, **arguments(choices=["edge_0"]))
    with pytest.raises(
        CheckpointError, match=r"split\.json.*another `choices of GradientSplit`: saved with \['edge_0"
    ):
        run(tmp_path, **arguments(choices=["edge_1"]))
    run(tmp_path, **arguments(choices=["edge_0"]))


def test_files_of_another_network_are_refused(tmp_path: Path) -> None:
    run(tmp_path, **OPS)
    wider = partial(ToyCellSpace, channels=6)
    message = r"same network.*first being `stem\.weight`: saved with \(4, 3, 3, 3\), resumed with \(6, 3, 3, 3\)"
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path, space=wider, **OPS)
    weights = SubSupernetWeights.load(tmp_path / "files")
    with pytest.raises(CheckpointError, match=message):
        weights.activate(toy_supernet(wider()), {"edge_0": "conv", "edge_1": "skip"})


def test_a_resumed_training_in_double_precision_loses_no_digits(tmp_path: Path) -> None:
    arguments = {"warmup_epochs": 1, **OPS}

    def evaluator() -> Any:
        return toy_evaluator(1, root=tmp_path, precision="64-true")

    torch.manual_seed(0)
    whole = run(tmp_path / "whole", evaluator=evaluator(), **arguments)
    torch.manual_seed(0)
    run(tmp_path / "cut", evaluator=evaluator(), only=[], **arguments)
    resumed = run(tmp_path / "cut", evaluator=evaluator(), **arguments)
    for one, other in zip(whole.weights.parts, resumed.weights.parts, strict=True):
        assert one.weights["stem.weight"].dtype == torch.float64
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


class Noted(nn.Identity):
    """Keep a state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.note = {"calls": 0}

    def get_extra_state(self) -> Any:
        return dict(self.note)

    def set_extra_state(self, state: Any) -> None:
        self.note = dict(state)


class NotedSpace(ToyCellSpace):
    """Hold a module with such a state."""

    def __init__(self) -> None:
        super().__init__()
        self.noted = Noted()


def test_a_module_s_state_beside_its_tensors_is_kept(tmp_path: Path) -> None:
    first, again, trainings = trained_again(tmp_path, space=NotedSpace, **OPS)
    assert trainings == 0 and again.weights.parts[0].weights["noted._extra_state"] == {"calls": 0}
    assert again.weights.digest(again.trained) == first.weights.digest(first.trained)
    supernet = Supernet(first.trained.model)
    before = supernet.digest()
    supernet.model.noted.note = {"calls": 1}
    assert supernet.digest() != before
