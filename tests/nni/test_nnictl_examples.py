"""The examples for ``nnictl``, run by it at their smallest scale."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from scipy import stats

from nni_supernet_ext.benchmarks import DigitCellsOracle
from nni_supernet_ext.callbacks import RankingConsistency
from nni_supernet_ext.testing.training import differing

from .nnictl import ROOT, NnictlExperiment, environment_of, wait

HELD = 1  # the epoch that begins only when a test says so
Make = Callable[..., NnictlExperiment]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make an experiment from an example, with changes of its configuration."""
    made: list[NnictlExperiment] = []

    def example(name: str, **changes: Any) -> NnictlExperiment:
        source = ROOT / "examples" / name
        shutil.copytree(source, tmp_path / "code", ignore=shutil.ignore_patterns("__pycache__"))
        config = yaml.safe_load((source / "config.yml").read_text())
        command = config["trialCommand"].replace("python", sys.executable) + " --smoke"
        for path in ("trialCodeDirectory", "searchSpaceFile"):
            config.pop(path, None)
        made.append(NnictlExperiment(tmp_path, {**config, "trialCommand": command, **changes}))
        return made[-1]

    yield example
    for experiment in made:
        experiment.end()


def trial_files(experiment: NnictlExperiment, name: str) -> Iterator[Path]:
    """Find a file in the folders of all trials."""
    return experiment.folder.glob(f"environments/*/trials/*/{name}")


def axes(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "examples" / name / "search_space.json").read_text()))


def test_ranking_example_reports_kendalls_tau_against_the_table(make: Make) -> None:
    space = axes("nnictl_ranking")
    assert {"spos", "calr+ms"} <= set(space["method"]["_value"])
    space["method"]["_value"], space["seed"]["_value"] = ["spos", "calr+ms"], [1]
    experiment = make("nnictl_ranking", searchSpace=space, maxTrialNumber=2)
    experiment.create()
    wait(lambda: experiment.status() == "DONE")
    trials = experiment.trials()
    assert [trial.parameters for trial in trials] == [{"method": m, "seed": 1} for m in ("spos", "calr+ms")]
    truths = RankingConsistency.from_oracle(DigitCellsOracle(), n=10).truths
    for trial in trials:
        assert trial.state == "SUCCEEDED" and sorted(trial.reported) == [0, 1]
        for report in trial.reported.values():
            assert {"default", "val_acc", "val_loss", "train_loss"} <= set(report)
        (file,) = [path for path in trial_files(experiment, "last.ckpt") if path.parent.name == trial.id]
        parts = torch.load(file, weights_only=True)["nni_supernet_ext"]["components"]
        predicted = parts["RankingConsistency/0"]["predicted"]
        tau = stats.kendalltau(predicted, truths).statistic
        assert trial.final is not None
        assert trial.reported[1]["default"] == trial.final["default"] == pytest.approx(tau)
        assert trial.final["ranking_kendall_tau"] == trial.final["default"]
    first, second = (trial.reported[1]["val_loss"] for trial in trials)
    assert first != second, "two methods"


HOLD = f"""
import pathlib, runpy, sys, time
import pytorch_lightning as pl
import training

class Hold(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        while trainer.current_epoch == {HELD} and not pathlib.Path("go").exists():
            time.sleep(0.1)

made = training.few_shot
def held(*arguments, **settings):
    strategy = made(*arguments, **settings)
    strategy.base.callbacks.append(Hold())
    return strategy
training.few_shot = held
runpy.run_path("trial.py", run_name="__main__")
"""


def search(home: Path, folder: Path) -> str:
    """Run the collecting script of the example."""
    script = ROOT / "examples" / "nnictl_few_shot" / "search.py"
    home.mkdir(exist_ok=True)
    command = [sys.executable, str(script), str(folder), "--smoke"]
    done = subprocess.run(
        command, env=environment_of(home), cwd=home, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_parts_train_as_trials_at_once_and_equal_those_trained_in_a_row(make: Make, tmp_path: Path) -> None:
    """Three trials at once; one is killed, then all are stopped and resumed, and a script collects the parts."""
    experiment = make("nnictl_few_shot", searchSpace=axes("nnictl_few_shot"))
    assert (experiment.settings["trialConcurrency"], experiment.settings["maxTrialNumber"]) == (3, 3)
    (experiment.code / "hold.py").write_text(HOLD)
    experiment.change(trialCommand=experiment.settings["trialCommand"].replace("trial.py", "hold.py"))
    experiment.create()
    wait(lambda: len(experiment.trials()) == 3 and all(len(t.reported) == HELD for t in experiment.trials()))
    shared, names = experiment.folder / "shared", ["part-0", "part-1", "part-2"]
    wait(lambda: sorted(path.parent.name for path in shared.glob("*/last.ckpt")) == names)

    noted = {path.parent.name: json.loads(path.read_text()) for path in trial_files(experiment, "parameters.json")}
    parts = {trial: entry["parameters"]["part"] for trial, entry in noted.items()}
    assert sorted(parts.values()) == [0, 1, 2], "each once"
    victim = next(trial for trial, part in parts.items() if part == 1)
    (process,) = [p for p in experiment.processes() if p.environ()["NNI_TRIAL_JOB_ID"] == victim]
    process.kill()
    # NNI takes any end by a signal for one that the user wanted.
    wait(lambda: {t.id: t.state for t in experiment.trials()}[victim] in ("USER_CANCELED", "FAILED"))
    experiment.nnictl("stop", experiment.listed["id"])
    wait(lambda: not experiment.processes())
    assert not list(shared.glob("part-*.pt"))

    (experiment.code / "go").touch()
    experiment.resume()
    wait(lambda: experiment.status() == "DONE")
    states = {trial.id: trial for trial in experiment.trials()}
    for trial, part in parts.items():
        assert (states[trial].state == "SUCCEEDED") == (part != 1)
        assert (shared / f"part-{part}.pt").exists() == (part != 1), "each goes on with the part it began"
        if part != 1:
            assert sorted(states[trial].reported) == [0, 1, 2]

    elsewhere = tmp_path / "elsewhere"
    assert "3 parts" in search(elsewhere, shared)
    search(elsewhere, tmp_path / "in a row")
    for part in range(3):
        one, other = (torch.load(f / f"part-{part}.pt", weights_only=True) for f in (shared, tmp_path / "in a row"))
        assert differing(one["weights"], other["weights"]) == [] and one["results"] == other["results"]
    lines = [(f / "search.jsonl").read_text().splitlines()[1:] for f in (shared, tmp_path / "in a row")]
    assert lines[0] == lines[1] and lines[0], "and so does the search"
