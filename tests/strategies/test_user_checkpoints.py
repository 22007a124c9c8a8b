"""A user's own checkpoints beside the strategy's."""

from __future__ import annotations

from pathlib import Path

import pytest
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.callbacks import ModelCheckpoint

from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import ToySpace, toy_evaluator


def written(root: Path, evaluator) -> list[str]:
    strategy = SupernetStrategy(validate=0, record=False, checkpoint_dir=root / "own")
    strategy(RawFormatModelSpace(ToySpace(), evaluator), SequentialExecutionEngine())
    return sorted(path.name for path in root.rglob("*.ckpt"))


@pytest.mark.parametrize("appended", [False, True])
def test_a_user_s_checkpoint_is_kept(tmp_path: Path, appended: bool) -> None:
    mine = ModelCheckpoint(save_top_k=-1, filename="mine-{epoch}")
    evaluator = toy_evaluator(2, root=tmp_path, callbacks=[] if appended else [mine])
    if appended:
        evaluator.trainer.callbacks.append(mine)
    assert written(tmp_path, evaluator) == ["last.ckpt", "mine-epoch=0.ckpt", "mine-epoch=1.ckpt"]


def test_lightning_s_own_checkpoint_is_not_written(tmp_path: Path) -> None:
    evaluator = toy_evaluator(2, root=tmp_path)
    before = list(evaluator.trainer.callbacks)
    assert written(tmp_path, evaluator) == ["last.ckpt"]
    assert evaluator.trainer.callbacks == before


@pytest.mark.parametrize("place", ["instead", "before"])
def test_a_checkpoint_in_the_place_of_lightning_s_is_kept(tmp_path: Path, place: str) -> None:
    evaluator = toy_evaluator(1, root=tmp_path)
    made = [callback for callback in evaluator.trainer.callbacks if not isinstance(callback, ModelCheckpoint)]
    mine = ModelCheckpoint(dirpath=tmp_path / "mine", monitor="val_acc", filename="best")
    evaluator.trainer.callbacks = [*made, mine] if place == "instead" else [mine, *evaluator.trainer.callbacks]
    assert written(tmp_path, evaluator) == ["best.ckpt", "last.ckpt"]
