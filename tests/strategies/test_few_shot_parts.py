"""What few-shot training takes from the base and the evaluator, and what it leaves there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nni
import pytest
import pytorch_lightning as pl
import torch
from nni.mutable import ExpressionConstraint
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear
from nni.nas.space import RawFormatModelSpace
from torch import nn

from nni_supernet_ext.callbacks.history import TrainingHistory
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.strategies import (
    ChoiceSplit,
    FewShotStrategy,
    GradientSplit,
    SupernetStrategy,
    gradient_split,
)
from nni_supernet_ext.strategies.stages import fresh_evaluator
from nni_supernet_ext.testing import ToySpace, toy_evaluator


def base(**settings: Any) -> SupernetStrategy:
    return SupernetStrategy(validate=0, record=False, **settings)


def run(few_shot: FewShotStrategy, evaluator: Any) -> FewShotStrategy:
    few_shot(RawFormatModelSpace(ToySpace(), evaluator), SequentialExecutionEngine())
    return few_shot


def test_two_trainings_with_one_base_do_not_share_files(tmp_path: Path) -> None:
    shared = base()
    first, second = (
        run(FewShotStrategy(shared, [ChoiceSplit("op")]), toy_evaluator(1, root=tmp_path, learning_rate=rate))
        for rate in (0.05, 0.5)
    )
    one, other = first.weights.parts[0].weights, second.weights.parts[0].weights
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert shared.checkpoint_dir is None
    assert first.checkpoint_dir != second.checkpoint_dir and first.checkpoint_dir.exists()


def test_an_invented_folder_is_found_again(tmp_path: Path) -> None:
    first = run(FewShotStrategy(base(), [ChoiceSplit("op")]), toy_evaluator(1, root=tmp_path))
    again = FewShotStrategy(base(), [ChoiceSplit("op")])
    again.initialize(RawFormatModelSpace(ToySpace(), toy_evaluator(1, root=tmp_path)), SequentialExecutionEngine())
    again.load_state_dict(first.state_dict())
    again.run()
    assert again.checkpoint_dir == first.checkpoint_dir and again.part_callbacks == {}
    assert len(again.weights.parts) == 3


class Started(pl.Callback):
    """Count trainings."""

    n = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.n += 1


def test_the_evaluator_s_callbacks_are_copied_for_each_part(tmp_path: Path) -> None:
    given, appended, own = TrainingHistory(), Started(), Started()
    evaluator = toy_evaluator(1, root=tmp_path, callbacks=[given], enable_progress_bar=True)
    evaluator.trainer.callbacks.append(appended)
    few_shot = run(FewShotStrategy(base(callbacks=[own]), [ChoiceSplit("op")]), evaluator)
    assert sorted(few_shot.part_callbacks) == [0, 1, 2]
    for callbacks in few_shot.part_callbacks.values():
        assert [type(callback) for callback in callbacks] == [Started, TrainingHistory, Started]
        assert len(callbacks[1].arrays()["loss"]) == 4
        assert callbacks[0].n == callbacks[2].n == 1
    assert given.rows() == [] and appended.n == own.n == 0


def test_a_checkpoint_to_start_from_is_refused(tmp_path: Path) -> None:
    evaluator = toy_evaluator(1, root=tmp_path)
    evaluator.fit_kwargs["ckpt_path"] = "earlier.ckpt"
    with pytest.raises(ConfigurationError, match=r"`ckpt_path` of the evaluator's `fit_kwargs`.*`checkpoint_dir`"):
        run(FewShotStrategy(base(), [ChoiceSplit("op")]), evaluator)


def test_a_part_that_a_late_split_does_not_make_is_refused(tmp_path: Path) -> None:
    few_shot = FewShotStrategy(base(), [GradientSplit(batches=1, subnets=1)], warmup_epochs=1, only=[7])
    with pytest.raises(ConfigurationError, match="`only` is expected to hold numbers of sub-supernets below 2"):
        run(few_shot, toy_evaluator(1, root=tmp_path))


def test_trying_one_batch_leaves_no_files(tmp_path: Path) -> None:
    def few_shot() -> FewShotStrategy:
        return FewShotStrategy(base(checkpoint_dir=tmp_path / "files"), [ChoiceSplit("op")], warmup_epochs=1)

    assert len(run(few_shot(), toy_evaluator(1, root=tmp_path, fast_dev_run=True)).weights.parts) == 3
    assert not (tmp_path / "files").exists()
    assert len(run(few_shot(), toy_evaluator(1, root=tmp_path)).weights.parts) == 3


class Ordered(ModelSpace):
    """Have two widths, of which the second is at least the first, or equals it."""

    def __init__(self, equal: bool = False) -> None:
        super().__init__()
        first, second = nni.choice("first", [4, 8]), nni.choice("second", [4, 8])
        self.add_mutable(first)
        self.add_mutable(second)
        self.add_mutable(ExpressionConstraint(first == second if equal else first <= second, label="order"))
        self.one, self.other = MutableConv2d(3, first, 3), MutableConv2d(first, second, 3)
        self.head = MutableLinear(second, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.other(self.one(x))).mean(dim=(2, 3)))


def run_ordered(few_shot: FewShotStrategy, root: Path, equal: bool = False) -> FewShotStrategy:
    few_shot(RawFormatModelSpace(Ordered(equal), toy_evaluator(1, root=root)), SequentialExecutionEngine())
    return few_shot


def test_regions_that_the_constraints_leave_empty_are_no_parts(tmp_path: Path) -> None:
    few_shot = run_ordered(FewShotStrategy(base(), [ChoiceSplit("first"), ChoiceSplit("second")]), tmp_path)
    pairs = [(part.region["first"], part.region["second"]) for part in few_shot.weights.parts]
    assert pairs == [([4], [4]), ([4], [8]), ([8], [8])]
    assert [part.region for part in few_shot.weights.parts] == few_shot.regions


@pytest.mark.parametrize("equal", [False, True])
def test_the_gradient_rule_looks_at_legal_subnets_only(
    tmp_path: Path, equal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    of_all = gradient_split._gradient

    def gradient(context: Any, samples: Any, batches: Any) -> Any:
        seen.append(samples)
        return of_all(context, samples, batches)

    monkeypatch.setattr(gradient_split, "_gradient", gradient)
    rule = GradientSplit(["first", "second"], batches=1, subnets=4)
    run_ordered(FewShotStrategy(base(), [rule], warmup_epochs=1), tmp_path, equal)
    pairs = [[(sample["first"], sample["second"]) for sample in samples] for samples in seen]
    if equal:
        assert pairs == [[(width, width)] * 4 for width in (4, 8, 4, 8)]
    else:
        assert pairs == [[(4, 8)] * 4, [(8, 8)] * 4, [(4, 4)] * 4, [(4, 8)] * 4]


class Apart(ModelSpace):
    """Have candidates that share no weight, and others without any."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 3, 5)
        self.whole = LayerChoice(
            [nn.Sequential(nn.Conv2d(3, 10, k), nn.AdaptiveAvgPool2d(1), nn.Flatten()) for k in sizes],
            label="whole",
        )
        self.end = LayerChoice([nn.ReLU(), nn.Identity()], label="end")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.whole(x))


def test_the_gradient_rule_passes_over_choices_that_share_nothing(tmp_path: Path) -> None:
    def split(choices: list[str]) -> FewShotStrategy:
        few_shot = FewShotStrategy(base(), [GradientSplit(choices, batches=1, subnets=4)], warmup_epochs=1)
        evaluator = toy_evaluator(1, root=tmp_path)
        few_shot(RawFormatModelSpace(Apart(), evaluator), SequentialExecutionEngine())
        return few_shot

    assert split(["whole", "end"]).regions == [{"end": [0]}, {"end": [1]}]
    with pytest.raises(ConfigurationError, match=r"weights that they share, but got \['whole'\].*ChoiceSplit"):
        split(["whole"])


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_a_strategy_given_as_an_object_serves_every_part(tmp_path: Path, accelerator: str) -> None:
    evaluator = toy_evaluator(
        1,
        root=tmp_path,
        accelerator=accelerator,
        strategy=pl.strategies.SingleDeviceStrategy("cpu"),
        plugins=[pl.plugins.TorchCheckpointIO(), pl.plugins.DoublePrecision()],
    )
    few_shot = run(FewShotStrategy(base(), [ChoiceSplit("op")]), evaluator)
    assert [part.weights["stem.weight"].dtype for part in few_shot.weights.parts] == [torch.float64] * 3


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_a_strategy_for_several_devices_can_be_given_as_an_object(tmp_path: Path, accelerator: str) -> None:
    strategy = pl.strategies.DDPStrategy(process_group_backend="gloo")
    evaluator = toy_evaluator(1, root=tmp_path, accelerator=accelerator, devices=2, strategy=strategy)
    for _ in range(2):
        copied = fresh_evaluator(evaluator).trainer
        assert copied.num_devices == 2 and type(copied.accelerator) is type(evaluator.trainer.accelerator)
        assert type(copied.strategy) is pl.strategies.DDPStrategy and copied.strategy is not strategy
        assert copied.strategy._process_group_backend == "gloo"
