"""Experiments of a plain Python script under ``nnictl``: view, resume, and a script that dies with a live page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nni_supernet_ext._compat.nni_database import stored_trials

from .nnictl import Nnictl, environment_of, wait

EPOCHS = 3
HELD = 2  # the epoch that begins only when the test says so
SCRIPT = f"""
import pathlib, sys, time
import pytorch_lightning as pl
import nni_supernet_ext
from nni.nas.experiment import NasExperiment
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy
from nni_supernet_ext.testing import ToySpace, toy_evaluator

class Hold(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        while trainer.current_epoch == {HELD} and not pathlib.Path("go").exists():
            time.sleep(0.1)

action, port = sys.argv[1], int(sys.argv[2]) or None
space = ToySpace()
strategy = SupernetStrategy(seed=1, callbacks=[Hold()])
getattr(NasExperiment(space, toy_evaluator({EPOCHS}, root="."), strategy, id="training"), action)(port=port)
search = SupernetEvolution(population=3, cycles=0, progress=False)
NasExperiment(space, toy_evaluator({EPOCHS}, root="."), search, id="search").run(port=port)
"""


class Script(Nnictl):
    """A script in a home of its own."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        (home / "script.py").write_text(SCRIPT)
        self.go = home / "go"

    def start(self, action: str = "run", *, page: bool = False, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "script.py", action, str(self.port if page else 0)]
        with (self.home / "printed.txt").open("ab") as printed:
            return subprocess.Popen(
                command,
                cwd=self.home,
                env={**environment_of(self.home), **environment},
                stdout=printed,
                stderr=printed,
            )

    def finish(self, action: str = "run") -> None:
        process = self.start(action)
        assert process.wait(180) == 0, (self.home / "printed.txt").read_text()

    def stored(self, experiment: str) -> list[Any]:
        return stored_trials(self.home / "nni-experiments" / experiment / "db" / "nni.sqlite")

    def left(self) -> list[psutil.Process]:
        """Return every process of this home."""
        found = []
        for process in psutil.process_iter(["environ", "status"]):
            mine = (process.info["environ"] or {}).get("HOME") == str(self.home)
            if mine and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    made = Script(tmp_path)
    yield made
    for process in made.left():
        process.kill()


def test_finished_experiments_are_viewed_and_not_resumed(script: Script) -> None:
    script.go.touch()
    script.finish()
    before = script.stored("search")
    assert [trial.state for trial in before] == ["SUCCEEDED"] * 4
    shown = script.nnictl("experiment", "list", "--all")
    assert all(f"Id: {name}" in shown for name in ("training", "search"))

    script.nnictl("view", "search", "--port", str(script.port))
    assert script.status() == "VIEWED"
    jobs = script.rest("/trial-jobs")
    assert sorted(job["trialJobId"] for job in jobs) == sorted(trial.id for trial in before)
    script.nnictl("stop", "search")
    wait(lambda: not script.left())
    assert script.stored("search") == before, "looking changes nothing"

    with pytest.raises(AssertionError, match=r"Resume this experiment from its own script: NasExperiment"):
        script.nnictl("resume", "search", "--port", str(script.port))
    assert script.stored("search") == before and not script.left()


@pytest.mark.parametrize("everywhere", ["0", "1"])
def test_killed_under_its_live_page(script: Script, everywhere: str) -> None:
    """The page ends with the script, its results stay, and its own script, not nnictl, goes on with them."""
    process = script.start(page=True, NNI_SUPERNET_BIND_ALL=everywhere)

    def answers() -> bool:
        try:
            return script.status() == "VIEWED"
        except (urllib.error.URLError, ConnectionError):
            return False

    wait(answers)
    wait(lambda: script.stored("training") and len(script.stored("training")[0].reported) == HELD)
    managers = [p for p in script.left() if "main.js" in " ".join(p.cmdline())]
    (addresses,) = [{c.laddr.ip for c in p.net_connections("tcp") if c.status == "LISTEN"} for p in managers]
    assert addresses == ({"127.0.0.1"} if everywhere == "0" else {"::"})
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    wait(lambda: not script.left())
    (killed,) = script.stored("training")
    assert (sorted(killed.reported), killed.state) == (list(range(HELD)), "RUNNING")
    if everywhere == "1":
        return

    assert "Status: STOPPED" in script.nnictl("experiment", "list", "--all")
    script.nnictl("view", "training", "--port", str(script.port))
    (job,) = script.rest("/trial-jobs")
    assert job["trialJobId"] == killed.id
    script.nnictl("stop", "training")
    wait(lambda: not script.left())

    script.go.touch()
    script.finish("resume")
    (after,) = script.stored("training")
    assert (after.id, after.state, sorted(after.reported)) == (killed.id, "SUCCEEDED", list(range(EPOCHS)))
    assert {epoch: after.reported[epoch] for epoch in killed.reported} == killed.reported
