"""Real ``nnictl`` experiments with a small trial: stop and resume, a killed manager, an assessor, two at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from .nnictl import NnictlExperiment, wait

EPOCHS = 6
HELD = 2  # the epoch that begins only when the test says so
TRIAL = f"""
import pathlib, time
from nni_supernet_ext.trial import Trial
with Trial({{"quality": 1.0}}) as trial:
    state = trial.folder / "state.txt"
    for epoch in range(int(state.read_text()) if state.exists() else 0, {EPOCHS}):
        while epoch == {HELD} and not pathlib.Path("go").exists():
            time.sleep(0.1)
        time.sleep(0.1 if trial.parameters["quality"] == 1 else 2)  # the bad one is to be stopped in time
        trial.intermediate(epoch, {{"default": trial.parameters["quality"] * (epoch + 1), "loss": 1 / (epoch + 1)}})
        state.write_text(str(epoch + 1))
    trial.final()
"""


class Experiment(NnictlExperiment):
    """``go`` lets its trials pass the held epoch."""

    def __init__(self, home: Path, trials: int = 1, **settings: Any) -> None:
        config = {
            "searchSpace": {"quality": {"_type": "choice", "_value": [1.0, 0.1][:trials]}},
            "trialCommand": f"exec {sys.executable} trial.py",
            "maxTrialNumber": trials,
            **settings,
        }
        super().__init__(home, config)
        self.go = self.code / "go"
        (self.code / "trial.py").write_text(TRIAL)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[list[Experiment]]:
    experiments: list[Experiment] = []
    yield experiments
    for experiment in experiments:
        experiment.end()


def test_stop_and_resume_report_every_epoch_once(made: list[Experiment], tmp_path: Path) -> None:
    made.append(experiment := Experiment(tmp_path))
    experiment.create()
    addresses = {
        c.laddr.ip for c in psutil.Process(experiment.listed["pid"]).net_connections("tcp") if c.status == "LISTEN"
    }
    assert addresses == {"127.0.0.1"}, "loopback only"
    wait(lambda: experiment.trials() and len(experiment.trials()[0].reported) == HELD)
    experiment.nnictl("stop", experiment.listed["id"])
    (trial,) = experiment.trials()
    before = dict(trial.reported)
    assert sorted(before) == list(range(HELD)) and trial.state == "RUNNING"
    experiment.go.touch()

    experiment.resume()
    wait(lambda: experiment.trials()[0].state == "SUCCEEDED")
    (after,) = experiment.trials()
    assert after.id == trial.id and after.final == after.reported[EPOCHS - 1]
    assert experiment.epochs() == list(range(EPOCHS)), "each once"
    assert {epoch: after.reported[epoch] for epoch in before} == before
    wait(lambda: experiment.status() == "DONE")


def test_killed_manager_ends_the_trial_and_loses_nothing(made: list[Experiment], tmp_path: Path) -> None:
    made.append(experiment := Experiment(tmp_path))
    experiment.create()
    wait(lambda: experiment.trials() and len(experiment.trials()[0].reported) == HELD)
    os.kill(experiment.listed["pid"], signal.SIGKILL)
    experiment.go.touch()
    wait(lambda: not experiment.processes())
    experiment.resume()
    wait(lambda: experiment.trials()[0].state == "SUCCEEDED")
    assert experiment.epochs() == list(range(EPOCHS))


def test_assessor_ends_a_trial_cleanly(made: list[Experiment], tmp_path: Path) -> None:
    assessor = {"name": "Medianstop", "classArgs": {"optimize_mode": "maximize", "start_step": 2}}
    made.append(experiment := Experiment(tmp_path, trials=2, assessor=assessor))
    experiment.go.touch()
    experiment.create()
    wait(lambda: experiment.status() == "DONE")
    good, bad = experiment.trials()
    assert (good.state, sorted(good.reported)) == ("SUCCEEDED", list(range(EPOCHS)))
    # NNI 3.0 notes why it stopped a trial only after it has noted that it stopped.
    assert bad.state in ("EARLY_STOPPED", "USER_CANCELED")
    assert len(bad.reported) < EPOCHS and bad.final is None
    folder = next((tmp_path / "nni-experiments").glob(f"*/environments/*/trials/{bad.id}"))
    assert "Left: the trial was stopped by SIGINT." in (folder / "trial.stderr").read_text()


def test_two_experiments_at_once(made: list[Experiment], tmp_path: Path) -> None:
    for name in ("first", "second"):
        made.append(Experiment(tmp_path / name))
        made[-1].go.touch()
        made[-1].create()
    for experiment in made:
        wait(lambda e=experiment: e.trials() and e.trials()[0].state == "SUCCEEDED")
        assert experiment.epochs() == list(range(EPOCHS))


def test_a_tuner_may_take_longer_than_nnis_ten_seconds(made: list[Experiment], tmp_path: Path) -> None:
    tuner = {"className": "slow.SlowTuner", "codeDirectory": "."}
    made.append(experiment := Experiment(tmp_path, tuner=tuner))
    experiment.go.touch()
    (experiment.code / "slow.py").write_text(
        "import time\nfrom nni.tuner import Tuner\ntime.sleep(12)\n"
        "class SlowTuner(Tuner):\n"
        "    def update_search_space(self, search_space): pass\n"
        "    def generate_parameters(self, parameter_id, **kwargs): return {'quality': 1.0}\n"
        "    def receive_trial_result(self, *args, **kwargs): pass\n"
    )
    experiment.create()
    wait(lambda: experiment.status() == "DONE")
    assert [trial.state for trial in experiment.trials()] == ["SUCCEEDED"]
