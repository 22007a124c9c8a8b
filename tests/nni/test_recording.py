"""The recorder: rows, batches, one writer, faults, and a NasExperiment that shows itself."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import multiprocessing
import os
import resource
import signal
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from nni.nas.experiment import NasExperiment

from nni_supernet_ext._compat.nni_database import (
    create_database,
    event_row,
    insert_rows,
    metric_row,
    open_database,
    stored_configuration,
    stored_trials,
)
from nni_supernet_ext.core import Domain
from nni_supernet_ext.errors import ConfigurationError, SpaceError
from nni_supernet_ext.recording import (
    BatchWriter,
    ExperimentRecord,
    read_export,
    sample_from_parameters,
    search_axes,
    subnet_parameters,
)
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy
from nni_supernet_ext.testing import ToySpace, toy_evaluator, toy_supernet

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_database(tmp_path / "db" / "nni.sqlite")
    return tmp_path


def experiment(strategy: Any, tmp_path: Path, space: Any, id: str | None = None, epochs: int = 3) -> NasExperiment:
    made = NasExperiment(space, toy_evaluator(epochs, root=tmp_path), strategy, id=id)
    made.config.experiment_working_directory = str(tmp_path)
    return made


def trials_of(made: NasExperiment, tmp_path: Path) -> list[Any]:
    return stored_trials(tmp_path / made.id / "db" / "nni.sqlite")


def test_parameters_and_samples_are_inverse() -> None:
    domain = Domain(ToySpace())
    for sample in domain.grid():
        parameters = subnet_parameters(sample)
        as_text = {name: str(value) for name, value in parameters.items()}  # as in an exported table
        assert sample_from_parameters(parameters, domain) == sample == sample_from_parameters(as_text, domain)
    with pytest.raises(SpaceError, match="op"):
        sample_from_parameters({"op": "unknown", "width": 4}, domain)


def test_example_search_space_is_that_of_the_space() -> None:
    from nni_supernet_ext.spaces import nasbench201

    space = json.loads((EXAMPLES / "nnictl_search" / "search_space.json").read_text())
    assert space == search_axes(Domain(nasbench201(channels=4, cells_per_stage=1)))


def test_rows_are_committed_together_and_none_is_lost(folder: Path) -> None:
    writer = BatchWriter(folder / "db" / "nni.sqlite", interval=0.3)
    began = time.monotonic()
    for number in range(400):
        writer.add(metric_row(f"t{number}", number, "FINAL", 0, {"default": number}, 0))
        time.sleep(0.002)
    passed = time.monotonic() - began
    assert writer.close() == 0
    assert writer.commits <= passed / 0.3 + 2
    with sqlite3.connect(folder / "db" / "nni.sqlite") as connection:
        stored = [
            json.loads(json.loads(row[0]))["default"] for row in connection.execute("select data from MetricData")
        ]
    assert stored == list(range(400))


def test_a_reader_is_not_locked_out(folder: Path) -> None:
    """NNI's manager waits one second for a lock and then ends its experiment."""
    writer = BatchWriter(folder / "db" / "nni.sqlite", interval=0.05)
    reader = sqlite3.connect(folder / "db" / "nni.sqlite", timeout=1.0)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        writer.add(*[metric_row("t", 0, "FINAL", 0, {"default": 1}, 0) for _ in range(20)])
        reader.execute("select count(*) from MetricData").fetchone()
        reader.execute("insert into ExperimentProfile (revision) values (1)")
        reader.commit()
    reader.close()
    assert writer.close() == 0


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on file sizes here")
def test_disk_full_loses_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "db" / "nni.sqlite"
    writer = BatchWriter(path, interval=0.05)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        for number in range(3000):
            writer.add(metric_row(f"t{number}", number, "FINAL", 0, {"default": number}, 0))
        time.sleep(0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert writer.close() == 0
    with sqlite3.connect(path) as connection:
        counted = connection.execute("select count(*), count(distinct trialJobId) from MetricData").fetchone()
        assert counted == (
            3000,
            3000,
        )
    said = [record.message for record in caplog.records if "waits" in record.message]
    assert len(said) == 1, "said once"


def test_one_writer_and_no_repetition(folder: Path) -> None:
    first = ExperimentRecord(folder)
    with pytest.raises(ConfigurationError, match="one process at a time"):
        ExperimentRecord(folder)
    trial = first.begin({"stage": "supernet"})
    trial.intermediate(0, {"default": 0.1})
    first.subnet({"op": "conv"}, {"default": 0.5, "val_loss": float("nan")})
    assert first.close() == 0

    second = ExperimentRecord(folder)
    resumed = second.unfinished()
    assert resumed is not None
    resumed.intermediate(0, {"default": 0.9})
    resumed.intermediate(1, {"default": 0.2})
    resumed.finish({"default": 0.2})
    assert not second.subnet({"op": "conv"}, {"default": 0.5})
    assert second.subnet({"op": "skip"}, {"default": 0.4})
    second.close()

    supernet, conv, skip = stored_trials(folder / "db" / "nni.sqlite")
    assert (supernet.reported, supernet.final) == ({0: {"default": 0.1}, 1: {"default": 0.2}}, {"default": 0.2})
    assert conv.final == {"default": 0.5}, "NNI's page takes null for a choice among texts"
    assert (
        [t.sequence for t in (supernet, conv, skip)]
        == [0, 1, 2]
        == [t.parameter_id for t in (supernet, conv, skip)]
    )
    assert {t.state for t in (supernet, conv, skip)} == {"SUCCEEDED"}


def test_experiment_records_training_and_search(tmp_path: Path) -> None:
    space = ToySpace()
    training = experiment(SupernetStrategy(seed=1), tmp_path, space)
    training.run()
    (supernet,) = trials_of(training, tmp_path)
    assert sorted(supernet.reported) == [0, 1, 2]
    assert {"default", "train_loss", "val_acc", "val_acc/smallest"} <= set(supernet.reported[0])
    assert supernet.reported[0]["default"] == supernet.reported[0]["val_acc"]

    search = SupernetEvolution(population=3, cycles=1, progress=False, count_flops=True)
    searched = experiment(search, tmp_path, space)
    searched.run()
    shown, *subnets = trials_of(searched, tmp_path)
    assert shown.reported == supernet.reported
    assert [sample_from_parameters(t.parameters, search.supernet.domain) for t in subnets] == [
        subnet.sample for subnet in search.history
    ]
    for trial, subnet in zip(subnets, search.history, strict=True):
        costs = {"parameters": subnet.parameters, "flops": subnet.flops}
        assert trial.final == {"default": subnet.metrics["val_acc"], **subnet.metrics, **costs}
    configuration, _, _ = stored_configuration(tmp_path / searched.id / "db" / "nni.sqlite")
    assert configuration["searchSpace"] == search_axes(search.supernet.domain)
    for made in (searched, training):
        made.stop()


def test_a_search_s_page_shows_its_own_metric_of_the_training(tmp_path: Path) -> None:
    """Otherwise the supernet's accuracy would stand among the losses of subnets, and best of all by chance."""
    space = ToySpace()
    search = SupernetEvolution(population=2, cycles=0, progress=False, metric="val_loss", mode="min")
    supernets = []
    for strategy in (SupernetStrategy(), search):
        made = experiment(strategy, tmp_path, space, epochs=1)
        made.run()
        made.stop()
        supernets.append(trials_of(made, tmp_path)[0])
    trained, shown = supernets
    assert trained.final["default"] == shown.final["val_acc"]
    assert shown.final["default"] == shown.final["val_loss"] == shown.reported[0]["default"]


def test_another_search_of_the_same_experiment_is_added(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = [[0.5, 0.4], [0.5, 0.9], [0.8, 0.9]]
    for values in [*found, *found]:  # and all of them go on later
        record = ExperimentRecord(folder)
        for op, value in zip(("conv", "skip"), values, strict=True):
            record.subnet({"op": op}, {"default": value, "val_loss": math.nan})
        record.close()
    stored = stored_trials(folder / "db" / "nni.sqlite")
    assert [trial.final["default"] for trial in stored if trial.final] == [0.5, 0.4, 0.9, 0.8]
    told = [message for message in caplog.messages if "holds other results" in message]
    assert len(told) == 2 and folder.name in told[0], "once for each of the two that differ"


def test_a_training_that_starts_anew_is_another_trial(tmp_path: Path) -> None:
    """Otherwise the first epochs of the curve would be of the one that was interrupted."""
    from pytorch_lightning import Callback

    class Leave(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                raise SystemExit

    for seed, callbacks in ((1, [Leave()]), (2, [])):
        made = experiment(
            SupernetStrategy(seed=seed, callbacks=callbacks), tmp_path, ToySpace(), id="same", epochs=2
        )
        with contextlib.suppress(SystemExit):
            made.run()
        made.stop()
    interrupted, whole = trials_of(made, tmp_path)
    assert (interrupted.state, sorted(interrupted.reported)) == ("USER_CANCELED", [0])
    assert (whole.state, sorted(whole.reported)) == ("SUCCEEDED", [0, 1])
    assert whole.reported[0] != interrupted.reported[0]


def test_switched_off_by_one_argument(tmp_path: Path) -> None:
    made = experiment(SupernetStrategy(record=False), tmp_path, ToySpace(), epochs=1)
    made.run()
    made.stop()
    assert not (tmp_path / made.id / "db").exists()


def test_recording_changes_no_weight(tmp_path: Path) -> None:
    import torch

    weights = []
    for record in (True, False):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            space = ToySpace()
            made = experiment(SupernetStrategy(record=record), tmp_path, space, epochs=2)
            made.run()
            made.stop()
        weights.append(space.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_taken_port_is_said_once_and_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        made = experiment(SupernetStrategy(), tmp_path, ToySpace())
        with caplog.at_level(logging.WARNING):
            made.run(port=taken.getsockname()[1])
        made.stop()
    said = [record.message for record in caplog.records if "is not served" in record.message]
    assert len(said) == 1 and "is taken" in said[0]
    (supernet,) = trials_of(made, tmp_path)
    assert supernet.state == "SUCCEEDED" and len(supernet.reported) == 3


def test_missing_node_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nni_node

    monkeypatch.setattr(nni_node, "__path__", [str(tmp_path)])
    made = experiment(SupernetStrategy(), tmp_path, ToySpace(), epochs=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with caplog.at_level(logging.WARNING):
        made.run(port=port)
    made.stop()
    assert sum("node could not be started" in record.message for record in caplog.records) == 1
    assert trials_of(made, tmp_path)[0].state == "SUCCEEDED"


def _train_and_die(tmp_path: str, checkpoint: str) -> None:
    from pytorch_lightning import Callback

    class Die(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                time.sleep(1.5)  # so that the last commit is made
                os.kill(os.getpid(), signal.SIGKILL)

    strategy = SupernetStrategy(checkpoint_dir=checkpoint, callbacks=[Die()])
    experiment(strategy, Path(tmp_path), ToySpace(), id="killed", epochs=4).run()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("failed", [False, True], ids=["killed", "then taken by stock nnictl resume"])
def test_killed_training_is_resumed_without_repetition(tmp_path: Path, failed: bool) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=_train_and_die, args=(str(tmp_path), str(tmp_path / "checkpoint"))
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    database = tmp_path / "killed" / "db" / "nni.sqlite"
    (before,) = stored_trials(database)
    assert (sorted(before.reported), before.state) == ([0, 1], "RUNNING")
    if failed:  # The manager starts the trial's command, which says what to do and fails.
        connection = open_database(database)
        insert_rows(connection, [event_row(before.id, "FAILED", 0, at=1, folder=tmp_path)])
        connection.close()

    resumed = experiment(
        SupernetStrategy(checkpoint_dir=tmp_path / "checkpoint"), tmp_path, ToySpace(), id="killed", epochs=4
    )
    resumed.resume()
    resumed.stop()
    (after,) = stored_trials(database)
    assert (sorted(after.reported), after.state, after.id) == ([0, 1, 2, 3], "SUCCEEDED", before.id)
    with sqlite3.connect(database) as connection:
        kinds = [row[0] for row in connection.execute("select type from MetricData order by rowid")]
    assert kinds == ["PERIODICAL"] * 4 + ["FINAL"]


def test_resumed_search_adds_no_subnet_twice(tmp_path: Path) -> None:
    supernet = toy_supernet()
    for _ in range(2):
        search = SupernetEvolution(population=3, cycles=0, progress=False, journal=tmp_path / "search.jsonl")
        made = experiment(search, tmp_path, supernet.model, id="search")
        made.run()
        made.stop()
    assert len(stored_trials(tmp_path / "search" / "db" / "nni.sqlite")) == 3


def test_exported_subnet_becomes_a_network_with_its_weights(tmp_path: Path) -> None:
    import torch

    supernet = toy_supernet()
    exported = [
        {"parameter": subnet_parameters(sample), "value": json.dumps({"default": value}), "trialJobId": str(value)}
        for value, sample in enumerate(supernet.domain.grid())
    ]
    exported.append({"parameter": {"stage": "supernet"}, "value": json.dumps({"default": 99.0}), "trialJobId": "x"})
    (tmp_path / "export.json").write_text(json.dumps(exported))
    best = read_export(tmp_path / "export.json", supernet.domain)[0]
    assert best.metrics == {"default": len(exported) - 2}
    images = torch.randn(4, 3, 8, 8)
    network = supernet.extract(best.sample, verify=images)
    supernet.activate(best.sample)
    assert torch.equal(network.eval()(images), supernet.model.eval()(images))
