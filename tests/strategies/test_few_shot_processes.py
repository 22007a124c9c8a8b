"""Few-shot training by several processes: killed and resumed by NNI, and at the same time in one folder."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from nni.nas.experiment import NasExperiment

from nni_supernet_ext.callbacks import ComplexityAwareLR
from nni_supernet_ext.strategies import ChoiceSplit, FewShotStrategy, SubSupernetWeights
from nni_supernet_ext.strategies.stage_files import StageFiles
from nni_supernet_ext.testing import ToyCellSpace, toy_evaluator
from nni_supernet_ext.testing.training import differing

from .test_few_shot import Kill, base, run, trace_of

FORK = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def few_shot(folder: Path | None = None, *callbacks, **settings) -> FewShotStrategy:
    strategy = base(ComplexityAwareLR(), *callbacks, **({} if folder is None else {"checkpoint_dir": folder}))
    return FewShotStrategy(strategy, [ChoiceSplit("edge_0")], **settings)


def in_another_process(target, *arguments) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


class Sigkill(Kill):
    """Die by SIGKILL, in place of an exception that could be cleaned up after."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.current_epoch == 1 and pl_module.state.draws[0].sample["edge_0"] == self.op:
            os.kill(os.getpid(), signal.SIGKILL)


def experiment(strategy: FewShotStrategy, root: Path) -> NasExperiment:
    made = NasExperiment(ToyCellSpace(), toy_evaluator(2, root=root), strategy, id="few")
    made.config.experiment_working_directory = str(root)
    return made


def _train_and_die(root: Path) -> None:
    torch.manual_seed(0)
    experiment(few_shot(None, Sigkill("point")), root).run()


@FORK
def test_killed_script_is_resumed_by_nni(tmp_path: Path) -> None:
    process = in_another_process(_train_and_die, tmp_path)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    resumed = few_shot()
    made = experiment(resumed, tmp_path)
    made.resume()
    made.stop()
    assert 0 not in resumed.part_callbacks, "finished before"
    assert len(trace_of(resumed, 1).draws) == 4, "the second epoch only"
    assert len(trace_of(resumed, 2).draws) == 8
    whole = run(few_shot(tmp_path / "whole"), tmp_path)
    for mine, theirs in zip(resumed.weights.parts, whole.weights.parts, strict=True):
        assert differing(mine.weights, theirs.weights) == []
        assert mine.results == theirs.results


def _train_from_other_weights(folder: Path, only: list[int], ended: Path) -> None:
    evaluator = toy_evaluator(max_epochs=2, root=folder)
    strategy = few_shot(folder, only=only)
    torch.manual_seed(1)
    made = NasExperiment(ToyCellSpace(), evaluator, strategy)
    made.config.experiment_working_directory = str(folder)
    made.run()
    ended.write_text(str(sorted(strategy.part_callbacks)))


@FORK
@pytest.mark.parametrize("held", ["initial", "part-0"])
def test_processes_at_once_share_the_start_and_train_no_part_twice(tmp_path: Path, held: str) -> None:
    """While one process makes a file of the folder, another one waits for it and takes it over."""
    other, folder, ended = tmp_path / "other", tmp_path / "parts", tmp_path / "ended"
    whole = run(few_shot(other), tmp_path)
    folder.mkdir()
    if held != "initial":
        shutil.copy(other / "initial.pt", folder)
    with StageFiles(folder).alone(held):
        process = in_another_process(_train_from_other_weights, folder, [0], ended)
        time.sleep(4)
        assert process.is_alive() and not (folder / f"{held}.pt").exists(), "it waits"
        shutil.copy(other / f"{held}.pt", folder)
    process.join(60)
    assert process.exitcode == 0
    assert ended.read_text() == ("[0]" if held == "initial" else "[]")
    (part,) = SubSupernetWeights.load(folder).parts
    assert differing(part.weights, whole.weights.parts[0].weights) == []


def _hold_for_ever(folder: Path) -> None:
    with StageFiles(folder).alone("part-0"):
        (folder / "held").touch()
        time.sleep(600)


@FORK
def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    process = in_another_process(_hold_for_ever, tmp_path)
    while not (tmp_path / "held").exists():
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    with StageFiles(tmp_path).alone("part-0"):
        pass
