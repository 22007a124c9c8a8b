"""What NNI itself cannot do in one-shot training, as docs/nni.md says: its own strategy refuses it too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nni
import nni.nas.nn.pytorch as nas
import pytest
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.oneshot.pytorch.supermodule.operation import NATIVE_SUPPORTED_OP_NAMES
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import RandomOneShot
from torch import nn

from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import ToySpace, toy_evaluator
from nni_supernet_ext.testing.toys import ToyModule

both = pytest.mark.parametrize("strategy", [RandomOneShot, SupernetStrategy])


def width() -> Any:
    return nni.choice("width", [4, 8])


def space_with(layer: Callable[[], nn.Module]) -> nas.ModelSpace:
    class Space(nas.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.op = nas.LayerChoice([nn.Linear(4, 4), nn.Identity()], label="op")
            self.layer = layer()

    return Space()


def test_layers_that_have_a_mixed_class() -> None:
    assert NATIVE_SUPPORTED_OP_NAMES == [
        "MutableLinear",
        "MutableConv2d",
        "MutableBatchNorm2d",
        "MutableLayerNorm",
        "MutableMultiheadAttention",
    ]


@both
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nas.MutableConv1d(3, width(), 3),
        lambda: nas.MutableBatchNorm1d(width()),
        lambda: nas.MutableDropout(nni.choice("p", [0.1, 0.2])),
        lambda: nas.MutableGroupNorm(2, width()),
        lambda: nas.MutableEmbedding(3, width()),
    ],
)
def test_other_layers_with_choices(strategy: Any, layer: Callable[[], nn.Module]) -> None:
    with pytest.raises(TypeError, match="has dangling mutables and is not supported"):
        strategy().mutate_model(space_with(layer))


@both
def test_inputs_without_a_number(strategy: Any) -> None:
    with pytest.raises(ValueError, match="n_chosen is None is not supported yet"):
        strategy().mutate_model(space_with(lambda: nas.InputChoice(2, n_chosen=None, label="input")))


def test_choice_without_a_label() -> None:
    with pytest.raises(ValueError, match="Label must be specified manually in NAS"):
        space_with(lambda: nas.LayerChoice([nn.ReLU(), nn.Tanh()]))


class ShortValidation(ToyModule):
    def validation_step(self, batch: Any) -> None:  # type: ignore[override]
        super().validation_step(batch, 0)


class ShortTraining(ToyModule):
    def training_step(self, batch: Any) -> Any:  # type: ignore[override]
        return super().training_step(batch, 0)


@both
@pytest.mark.parametrize("module", [ShortValidation, ShortTraining])
def test_steps_without_an_index(strategy: Any, module: type, tmp_path: Path) -> None:
    evaluator = toy_evaluator(1, root=tmp_path)
    evaluator.module.__class__ = module
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        strategy()(RawFormatModelSpace(ToySpace(), evaluator), SequentialExecutionEngine())


class Indexed(ToyModule):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx)


@pytest.mark.parametrize(("module", "error"), [(ToyModule, TypeError), (Indexed, KeyError)])
def test_several_validation_loaders_of_nnis_modules(module: type, error: type[Exception], tmp_path: Path) -> None:
    evaluator = toy_evaluator(1, root=tmp_path)
    evaluator.module.__class__ = module
    evaluator.val_dataloaders = [evaluator.val_dataloaders] * 2
    with pytest.raises(error):
        RandomOneShot()(RawFormatModelSpace(ToySpace(), evaluator), SequentialExecutionEngine())
