"""Real ``nnictl`` experiments with a small trial: stop and resume, a killed manager, an assessor, two at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from nni_supernet_ext._compat.nni_database import StoredTrial, stored_trials

ROOT = Path(__file__).resolve().parents[2]
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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Experiment:
    """An experiment in a home of its own; ``go`` lets its trials pass the held epoch."""

    def __init__(self, home: Path, trials: int = 1, **settings: Any) -> None:
        self.home = home
        self.go = home / "code" / "go"
        code = home / "code"
        code.mkdir(parents=True)
        (code / "trial.py").write_text(TRIAL)
        qualities = [1.0, 0.1][:trials]
        config = {
            "searchSpace": {"quality": {"_type": "choice", "_value": qualities}},
            "trialCommand": f"exec {sys.executable} trial.py",
            "trialCodeDirectory": str(code),
            "trialConcurrency": 1,
            "maxTrialNumber": trials,
            "tuner": {"name": "GridSearch"},
            "trainingService": {"platform": "local"},
            **settings,
        }
        (code / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        self.config = code / "config.yml"
        self.port = free_port()

    def nnictl(self, *arguments: str) -> str:
        environment = {**os.environ, "HOME": str(self.home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment.pop("NODE_OPTIONS", None)
        command = [sys.executable, "-m", "nni_supernet_ext.trial.nnictl", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def create(self) -> None:
        self.nnictl("create", "--config", str(self.config), "--port", str(self.port))

    @property
    def listed(self) -> dict[str, Any]:
        """Return NNI's entry of the experiment; NNI empties the file for a moment whenever it writes it."""
        file = self.home / "nni-experiments" / ".experiment"
        wait(lambda: file.read_text().endswith("}"), 10)
        (entry,) = json.loads(file.read_text()).values()
        return dict(entry)

    def trials(self) -> list[StoredTrial]:
        folder = self.home / "nni-experiments" / self.listed["id"]
        return stored_trials(folder / "db" / "nni.sqlite")

    def epochs(self) -> list[int]:
        """Return the epochs of all intermediate results; NNI stores those of one moment in any order."""
        path = self.home / "nni-experiments" / self.listed["id"] / "db" / "nni.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("select sequence from MetricData where type = 'PERIODICAL' order by sequence")
            return [row[0] for row in rows]

    def status(self) -> str:
        url = f"http://127.0.0.1:{self.port}/api/v1/nni/check-status"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(json.load(answer)["status"])

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["environ"]):
            environment = process.info["environ"] or {}
            if environment.get("NNI_EXP_ID") == self.listed["id"]:
                found.append(process)
        return found


def wait(condition: Any, patience: float = 180.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[list[Experiment]]:
    experiments: list[Experiment] = []
    yield experiments
    for experiment in experiments:
        experiment.nnictl("stop", "--all")
        wait(lambda e=experiment: not e.processes())


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

    experiment.port = free_port()
    experiment.nnictl("resume", experiment.listed["id"], "--port", str(experiment.port))
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
    wait(lambda: not experiment.processes(), 30)
    experiment.port = free_port()
    experiment.nnictl("resume", experiment.listed["id"], "--port", str(experiment.port))
    wait(lambda: experiment.trials()[0].state == "SUCCEEDED")
    assert experiment.epochs() == list(range(EPOCHS))


def test_assessor_ends_a_trial_cleanly(made: list[Experiment], tmp_path: Path) -> None:
    assessor = {"name": "Medianstop", "classArgs": {"optimize_mode": "maximize", "start_step": 2}}
    made.append(experiment := Experiment(tmp_path, trials=2, assessor=assessor))
    experiment.go.touch()
    experiment.create()
    wait(lambda: experiment.status() == "DONE", 120)
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
