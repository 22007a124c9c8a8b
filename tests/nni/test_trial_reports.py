"""What a trial reports of several trainings, of a kill in between, and of values that are no numbers."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.recording.epochs import EpochReports
from nni_supernet_ext.recording.whole import without_subnets
from nni_supernet_ext.recording.within_trial import WithinTrial
from nni_supernet_ext.strategies import ChoiceSplit, FewShotStrategy, SupernetStrategy
from nni_supernet_ext.strategies.quality import usual_quality
from nni_supernet_ext.testing import ToySpace, toy_evaluator
from nni_supernet_ext.trial import Trial
from nni_supernet_ext.trial.reports import ReportLog
from nni_supernet_ext.trial.trainings import TrainingStarts


def reported(folder: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
    assert len({line["index"] for line in lines}) == len(lines)
    return {line["index"]: line["metrics"] for line in lines}


def run(strategy: Any, evaluator: Any) -> None:
    torch.manual_seed(0)
    strategy(RawFormatModelSpace(ToySpace(), evaluator), SequentialExecutionEngine())


class KilledError(Exception):
    """Stand for a kill."""


class KillInSecondPart(pl.Callback):
    """Kill in the second epoch of part 1."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folders = [getattr(callback, "path", Path()).parent.name for callback in trainer.callbacks]
        if "part-1" in folders and trainer.current_epoch == 1:
            raise KilledError


def few_shot(folder: Path, *callbacks: pl.Callback, **trainer: Any) -> None:
    base = SupernetStrategy(callbacks=callbacks, checkpoint_dir=folder / "parts", validate=0)
    with Trial(folder=folder):
        evaluator = toy_evaluator(**{"max_epochs": 2, **trainer}, root=folder)
        run(FewShotStrategy(base, [ChoiceSplit("op")]), evaluator)


def test_a_killed_few_shot_trial_reports_every_epoch_of_every_part(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    few_shot(whole)
    with pytest.raises(KilledError):
        few_shot(killed, KillInSecondPart())
    assert sorted(reported(killed)) == [0, 1, 2]
    few_shot(killed)
    few_shot(killed)
    assert reported(killed) == reported(whole) and sorted(reported(whole)) == list(range(6))


def test_parts_limited_by_steps_are_all_reported(tmp_path: Path) -> None:
    few_shot(tmp_path, max_epochs=-1, max_steps=8)
    assert sorted(reported(tmp_path)) == list(range(6))


def test_a_folder_of_an_older_version_is_gone_on_with(tmp_path: Path) -> None:
    log = ReportLog(tmp_path / "reports.jsonl")
    log.add(0, {"default": 0.1})
    old = TrainingStarts(tmp_path / "trainings.json", log)
    assert (old.first("#0"), old.first("#1")) == (0, 1)
    assert TrainingStarts(tmp_path / "trainings.json", log).first("#1") == 1


class Values(pl.Callback):
    """Keep the validation loss at each epoch's end."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.losses.append(float(trainer.callback_metrics.get("val_loss", math.nan)))


def heard_of(root: Path, epochs: int, **trainer: Any) -> tuple[dict[int, dict[str, float]], list[float]]:
    heard: dict[int, dict[str, float]] = {}
    values = Values()
    callbacks = [values, EpochReports(lambda epoch, metrics: heard.setdefault(epoch, metrics))]
    run(SupernetStrategy(callbacks=callbacks, validate=0), toy_evaluator(epochs, root=root, **trainer))
    return heard, values.losses


def test_the_end_of_an_epoch_is_reported_and_not_its_middle(tmp_path: Path) -> None:
    heard, losses = heard_of(tmp_path, 2, val_check_interval=0.5)
    assert [heard[epoch]["val_loss"] for epoch in (0, 1)] == losses


def test_epochs_without_validation_are_reported_too(tmp_path: Path) -> None:
    heard, losses = heard_of(tmp_path, 5, check_val_every_n_epoch=2)
    assert sorted(heard) == [1, 2, 3, 4], "at the end of the first there was no accuracy yet"
    assert all("train_loss" in metrics for metrics in heard.values())
    assert [heard[epoch]["val_loss"] for epoch in range(1, 5)] == losses[1:]
    assert heard[2]["default"] == heard[1]["val_acc"]


def test_a_resumed_training_knows_the_values_of_the_last_validation(tmp_path: Path) -> None:
    whole, _ = heard_of(tmp_path / "whole", 3, check_val_every_n_epoch=2)
    heard: dict[int, dict[str, float]] = {}
    for epochs in (2, 3):
        reports = EpochReports(lambda epoch, metrics: heard.setdefault(epoch, metrics))
        strategy = SupernetStrategy(callbacks=[reports], validate=0, checkpoint_dir=tmp_path / "resumed")
        run(strategy, toy_evaluator(epochs, root=tmp_path, check_val_every_n_epoch=2))
    assert sorted(heard) == [1, 2]
    assert heard[2] == pytest.approx(whole[2])


def test_nan_is_never_the_best_subnet() -> None:
    for mode, best in (("max", 0.9), ("min", 0.2)):
        recording = WithinTrial(lambda index, metrics: None, "val_acc", None, None)
        recording.mode = mode
        for value in (math.nan, 0.2, 0.9, math.nan):
            recording.subnet({"op": "conv"}, {"default": value})
        assert recording.best == {"default": best}


def test_what_follows_a_cut_line_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "reports.jsonl"
    log = ReportLog(path)
    for index in range(3):
        log.add(index, {"default": 0.5})
    path.write_text(path.read_text()[:-8])
    assert ReportLog(path).add(2, {"default": 0.5})
    assert sorted(ReportLog(path).entries) == [0, 1, 2]


def test_tensors_become_numbers_and_others_are_refused_before_they_are_noted(tmp_path: Path) -> None:
    with Trial(folder=tmp_path) as trial:
        trial.intermediate(0, {"default": torch.tensor(0.5), "parameters": 3})
        for wrong in ("conv", None, torch.zeros(2)):
            with pytest.raises(ConfigurationError, match=r"`metrics` is expected to hold numbers, but got .* 'op'"):
                trial.intermediate(1, {"default": 0.5, "op": wrong})
        trial.intermediate(1, {"default": 0.75})
    assert reported(tmp_path) == {0: {"default": 0.5, "parameters": 3}, 1: {"default": 0.75}}


def test_a_script_that_runs_again_by_itself_reports_its_own_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The results of the time before would be printed as its own otherwise."""
    for values in ([0.1, 0.2, 0.3], [0.1, 0.7]):
        with Trial(folder=tmp_path) as trial:
            for epoch, value in enumerate(values):
                trial.intermediate(epoch, {"default": value})
            trial.final()
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "periodical 0: default 0.1",
        "periodical 1: default 0.7",
        "final 0: default 0.7",
    ]
    assert reported(tmp_path) == {0: {"default": 0.1}, 1: {"default": 0.7}}


@pytest.mark.parametrize("again", [False, True])
def test_reports_in_an_order_of_the_scripts_own_stay(tmp_path: Path, again: bool) -> None:
    path = tmp_path / "reports.jsonl"
    log = ReportLog(path, again)
    assert [log.add(index, {"default": value}) for index, value in ((5, 0.5), (3, 0.3), (5, 0.9))] == [True] * 2 + [
        False
    ]
    assert (
        log.entries == ReportLog(path).entries == reported(tmp_path) == {5: {"default": 0.5}, 3: {"default": 0.3}}
    )

    later = ReportLog(path, again=True)
    assert later.add(4, {"default": 0.4}) and later.add(3, {"default": 0.1}) and later.add(2, {"default": 0.2})
    assert reported(tmp_path) == {index: {"default": index / 10} for index in (2, 4)} | {3: {"default": 0.1}}


def test_nothing_is_no_final_result(tmp_path: Path) -> None:
    with (
        Trial(folder=tmp_path) as trial,
        pytest.raises(
            ConfigurationError, match="`metrics` is expected to be given where a trial has reported noth"
        ),
    ):
        trial.final()


@pytest.mark.parametrize("metrics", [0.5, {"loss": 0.5}])
def test_results_without_default_are_refused(tmp_path: Path, metrics: Any) -> None:
    """NNI's tuners and assessors raise at them, which ends the whole experiment."""
    with Trial(folder=tmp_path) as trial:
        for report in (trial.final, lambda given: trial.intermediate(0, given)):
            with pytest.raises(ConfigurationError, match="`metrics` is expected to hold `default`"):
                report(metrics)
        assert trial.last == {}


def test_without_accuracy_and_loss_no_evaluation_is_better() -> None:
    assert usual_quality({"val_score": 0.5}) == usual_quality({"val_score": 0.9}) == -math.inf


@pytest.mark.parametrize(
    "better", [{"val_acceleration_mse": 0.1}, {"val/mse": 0.1}, {"val_err": 0.1}, {"val_f1": 0.9}]
)
def test_better_by_the_words_of_a_metric(better: dict[str, float]) -> None:
    (name,) = better
    assert usual_quality(better) > usual_quality({name: 0.5})


def test_the_usual_names_come_first() -> None:
    first = {"val_aux_loss": 1.0, "val_f1": 0.2, "val_acc": 0.3, "val_loss": 2.0}
    assert usual_quality(first) == 0.3
    assert usual_quality({name: first[name] for name in ("val_aux_loss", "val_loss")}) == -2.0


def test_only_single_subnets_are_left_out_of_the_final_result() -> None:
    epoch = {
        "default": 1,
        "val/mse": 1,
        "val/mse/smallest": 2,
        "a/dataloader_idx_0": 3,
        "a/largest/dataloader_idx_0": 4,
    }
    assert without_subnets(epoch) == {"default": 1, "val/mse": 1, "a/dataloader_idx_0": 3}


def test_a_metric_that_nothing_logs_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Trial(folder=tmp_path, metric="val_mse") as trial, caplog.at_level(logging.WARNING):
        run(SupernetStrategy(), toy_evaluator(2, root=tmp_path))
        assert trial.last["default"] == trial.last["train_loss"]
    (said,) = [record.getMessage() for record in caplog.records if "`metric` of Trial" in record.getMessage()]
    assert "'val_mse'" in said and "'val_acc'" in said and "val_acc/smallest" not in said
