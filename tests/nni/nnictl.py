"""An experiment under real ``nnictl``, in a home of its own."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from nni_supernet_ext._compat.nni_database import StoredTrial, stored_trials

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait(condition: Callable[[], Any], patience: float = 400.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def environment_of(home: Path) -> dict[str, str]:
    """Return the environment of a user whose home this is."""
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    environment.pop("NODE_OPTIONS", None)
    return environment


class Nnictl:
    """What ``nnictl`` knows in a home, and its commands; one experiment in a home unless its id is given."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()

    def nnictl(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "nni_supernet_ext.trial.nnictl", *arguments]
        environment = environment_of(self.home)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def everything(self) -> dict[str, dict[str, Any]]:
        """Return NNI's list of experiments; NNI empties the file for a moment whenever it writes it."""
        file = self.home / "nni-experiments" / ".experiment"
        wait(lambda: file.read_text().endswith("}"))
        return dict(json.loads(file.read_text()))

    @property
    def listed(self) -> dict[str, Any]:
        (entry,) = self.everything.values()
        return entry

    @property
    def folder(self) -> Path:
        return self.home / "nni-experiments" / str(self.listed["id"])

    @property
    def database(self) -> Path:
        return self.folder / "db" / "nni.sqlite"

    def trials(self) -> list[StoredTrial]:
        return stored_trials(self.database)

    def epochs(self) -> list[int]:
        """Return the epochs of all intermediate results; NNI stores those of one moment in any order."""
        with closing(sqlite3.connect(self.database)) as connection:
            rows = connection.execute("select sequence from MetricData where type = 'PERIODICAL' order by sequence")
            return [row[0] for row in rows]

    def rest(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/nni{path}", timeout=10) as answer:
            return json.load(answer)

    def status(self) -> str:
        answer = self.rest("/check-status")
        assert answer["status"] != "ERROR", answer["errors"]
        return str(answer["status"])

    def processes(self) -> list[psutil.Process]:
        """Return the trials of the experiment that run."""
        found = []
        for process in psutil.process_iter(["environ"]):
            environment = process.info["environ"] or {}
            if environment.get("NNI_EXP_ID") == self.listed["id"]:
                found.append(process)
        return found


class NnictlExperiment(Nnictl):
    """An experiment that ``nnictl`` starts from a folder of code.

    Args:
        home: Its home; the code is to lie in ``code``.
        config: Its configuration, without what is the same for all.
    """

    def __init__(self, home: Path, config: Mapping[str, Any]) -> None:
        super().__init__(home)
        self.code = home / "code"
        self.code.mkdir(parents=True, exist_ok=True)
        self.settings: dict[str, Any] = {
            "trialCodeDirectory": str(self.code),
            "trialConcurrency": 1,
            "tuner": {"name": "GridSearch"},
            "trainingService": {"platform": "local"},
            **config,
        }
        self.config = self.code / "config.yml"
        self.change()

    def change(self, **changes: Any) -> None:
        """Write the configuration, with changes."""
        self.settings |= changes
        self.config.write_text(json.dumps(self.settings))  # JSON is YAML

    def create(self) -> None:
        self.nnictl("create", "--config", str(self.config), "--port", str(self.port))

    def resume(self) -> None:
        self.port = free_port()
        self.nnictl("resume", self.listed["id"], "--port", str(self.port))

    def end(self) -> None:
        self.nnictl("stop", "--all")
        wait(lambda: not self.processes())
