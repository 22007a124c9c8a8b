"""The trial: its parts, its reports, and its way out when NNI's manager is gone."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nni.nas.experiment import NasExperiment

from nni_supernet_ext._compat.nni_database import create_database, event_row, insert_rows, metric_row, open_database
from nni_supernet_ext._compat.nni_trial import TrialConnection
from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional import kendall_tau
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy
from nni_supernet_ext.testing import ToySpace, toy_evaluator
from nni_supernet_ext.trial import Trial, TrialStopped, make_parts, session

METHODS = {"spos": None, "calr": ComplexityAwareLR, "ms": MomentumSeparation}


class Channel:
    """Stand for NNI's: keep what is sent, and fail from a given number of messages on."""

    def __init__(self, lasts: int = 10**6) -> None:
        self.sent: list[tuple[str, int, dict[str, Any]]] = []
        self.lasts = lasts

    def send_metric(self, kind: str, parameter: int, trial: str, sequence: int, value: dict[str, Any]) -> None:
        if len(self.sent) >= self.lasts:
            raise ConnectionError("refused")
        self.sent.append((kind, sequence, value))


def connect(
    monkeypatch: pytest.MonkeyPatch, folder: Path, channel: Channel, experiment: Path | None = None
) -> None:
    made = TrialConnection({"seed": 3}, 0, "abcde", 0, folder, experiment, channel)
    monkeypatch.setattr(session, "connect_trial", lambda: made)


def run(space: Any, tmp_path: Path, strategy: Any, epochs: int = 1) -> None:
    made = NasExperiment(space, toy_evaluator(epochs, root=tmp_path), strategy)
    made.config.experiment_working_directory = str(tmp_path)
    try:
        made.run()
    finally:
        made.stop()


def test_parts_follow_the_parameters() -> None:
    parameters = {"method": "calr+ms", "calr.gamma_max": 3.0, "ms.by": "op", "seed": 1}
    calr, ms = make_parts(parameters, "method", METHODS)
    assert isinstance(calr, ComplexityAwareLR) and calr.gamma_max == 3.0
    assert isinstance(ms, MomentumSeparation) and ms.by == "op"
    assert make_parts({"method": "spos"}, "method", METHODS) == []
    with pytest.raises(ConfigurationError, match="'fair'"):
        make_parts({"method": "fair"}, "method", METHODS)
    with pytest.raises(ConfigurationError, match="search space"):
        make_parts({}, "method", METHODS)


def test_reports_each_epoch_once_and_the_final(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    channel = Channel()
    connect(monkeypatch, tmp_path / "trial", channel)
    truth = {"conv": 3.0, "linear": 2.0, "skip": 1.0}
    with Trial({"seed": 0}, truth=lambda sample: truth[sample["op"]] + sample["width"]) as trial:
        assert trial.parameters == {"seed": 3}
        space = ToySpace()
        strategy = SupernetStrategy(seed=trial.parameters["seed"], checkpoint_dir=trial.folder)
        run(space, tmp_path, strategy, epochs=3)
        trial.final()
    kinds = [(kind, sequence) for kind, sequence, _ in channel.sent]
    assert kinds == [("PERIODICAL", 0), ("PERIODICAL", 1), ("PERIODICAL", 2), ("FINAL", 0)]
    last, final = channel.sent[-2][2], channel.sent[-1][2]
    validation = strategy.module.validation
    names = [name for name in validation.subnets]
    expected = kendall_tau(
        [last[f"val_acc/{name}"] for name in names],
        [truth[validation.subnets[name]["op"]] + validation.subnets[name]["width"] for name in names],
    )
    assert trial.last["kendall_tau"] == pytest.approx(expected, nan_ok=True)
    assert final == {name: value for name, value in last.items() if "/" not in name}
    assert signal.getsignal(signal.SIGINT) is before


def test_manager_gone_then_resumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The report that the manager never got is sent after the resume; the others are not sent again."""
    database = tmp_path / "abcexp" / "db" / "nni.sqlite"
    create_database(database)
    connection = open_database(database)
    begun = event_row("abcde", "RUNNING", 0, at=0, folder=tmp_path, parameters={"seed": 3}, parameter_id=0)
    insert_rows(connection, [begun, metric_row("abcde", 0, "PERIODICAL", 0, {"default": 0.1}, 0)])
    connection.close()

    def attempt(channel: Channel) -> None:
        connect(monkeypatch, tmp_path / "trial", channel, database.parents[1])
        with Trial() as trial:
            strategy = SupernetStrategy(checkpoint_dir=trial.folder)
            run(ToySpace(), tmp_path, strategy, epochs=4)
            trial.final()

    first, second = Channel(lasts=1), Channel()
    with pytest.raises(KeyboardInterrupt):  # as Ctrl-C, for NNI reads the exit code
        attempt(first)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    assert [(kind, sequence) for kind, sequence, _ in first.sent] == [("PERIODICAL", 0)]
    attempt(second)
    assert [sequence for kind, sequence, _ in second.sent if kind == "PERIODICAL"] == [1, 2, 3]
    assert second.sent[-1][0] == "FINAL"


def test_search_in_a_trial_without_stage_adds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    channel = Channel()
    connect(monkeypatch, tmp_path / "trial", channel)
    with Trial() as trial:
        space = ToySpace()
        run(space, tmp_path, SupernetStrategy(checkpoint_dir=trial.folder))
        search = SupernetEvolution(population=2, cycles=0, progress=False)
        run(space, tmp_path, search)
        trial.final()
    assert channel.sent[-1][0] == "FINAL"
    assert channel.sent[-1][2]["default"] == search.best.metrics["val_acc"]


def test_what_is_not_finite_is_left_out_but_for_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """NNI's page cannot draw it, and NNI's tuners raise where `default` is missing."""
    channel = Channel()
    connect(monkeypatch, tmp_path / "trial", channel)
    with Trial() as trial:
        trial.intermediate(0, {"default": 0.5, "kendall_tau": math.nan, "val_loss": math.inf})
        assert math.isnan(trial.last["kendall_tau"])
        trial.final()
        assert not caplog.messages
        trial.final({"default": math.nan, "val_loss": math.nan, "flops": 3})
    assert [metrics for _, _, metrics in channel.sent[:2]] == [{"default": 0.5}] * 2
    assert channel.sent[2][2] == pytest.approx({"default": math.nan, "flops": 3}, nan_ok=True)
    assert "final `default` is nan" in caplog.text


def test_only_the_first_rank_reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The others find the reports of an earlier start in the folder, and would end the trial with its last one."""
    sent = {}
    for rank in (0, 1):
        monkeypatch.setattr(session, "_rank", lambda rank=rank: rank)
        channel = Channel()
        connect(monkeypatch, tmp_path / "trial", channel)
        with Trial() as trial:
            trial.intermediate(rank, {"default": 0.5})
            trial.final()
            trial.final({"default": 0.7})
        sent[rank] = [kind for kind, _, _ in channel.sent]
    assert sent == {0: ["PERIODICAL", "FINAL", "FINAL"], 1: []}
    assert len((tmp_path / "trial" / "reports.jsonl").read_text().splitlines()) == 1


def test_stopped_is_no_keyboard_interrupt() -> None:
    assert not issubclass(TrialStopped, KeyboardInterrupt), "NasExperiment.run would swallow it"


def test_leaves_by_the_signal() -> None:
    """0 would be SUCCEEDED to NNI and any other number FAILED."""
    code = (
        "import nni_supernet_ext.trial.stop as stop\n"
        "try:\n    raise stop.TrialStopped('gone')\n"
        "except stop.TrialStopped as e:\n    stop.leave_by_signal(e.reason)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.returncode == -signal.SIGINT
    assert done.stderr.strip().endswith("Left: gone.")


def test_a_resumed_trial_keeps_its_parameters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With several trials at once NNI may give a resumed one the parameters of another."""
    for parameters, number in (({"part": 1}, 7), ({"part": 0}, 3)):
        channel = Channel()
        made = TrialConnection(parameters, number, "abcde", 0, tmp_path / "trial", None, channel)
        monkeypatch.setattr(session, "connect_trial", lambda made=made: made)
        with Trial({"epochs": 2}) as trial:
            assert trial.parameters == {"part": 1, "epochs": 2}
            assert trial.connection is made and made.parameter_id == 7


def test_the_folder_that_trials_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone = Trial(folder=tmp_path / "alone")
    assert alone.shared_folder == tmp_path / "alone" / "shared" and alone.shared_folder.is_dir()
    alone.__exit__(None, None, None)
    create_database(tmp_path / "abcexp" / "db" / "nni.sqlite")
    for experiment in (tmp_path / "abcexp", None):
        connect(monkeypatch, tmp_path / "trial", Channel(), experiment)
        with Trial() as trial:
            if experiment is not None:
                assert trial.shared_folder == experiment / "shared"
            else:
                with pytest.raises(ConfigurationError, match=r"on another one\. Give the trials a folder"):
                    print(trial.shared_folder)
