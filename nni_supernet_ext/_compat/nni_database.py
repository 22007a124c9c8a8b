"""The records of an NNI experiment: the tables of ``<experiment>/db/nni.sqlite``, as NNI 3.0 writes them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "ENVIRONMENT",
    "Row",
    "StoredTrial",
    "create_database",
    "event_row",
    "insert_rows",
    "metric_row",
    "now",
    "open_database",
    "profile_row",
    "stored_configuration",
    "stored_trials",
]

ENVIRONMENT = "local-env"
"""What NNI calls the machine of its local training service."""

FINISHED = ("SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")
_TABLES = """
create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text, logPath text,
    sequenceId integer, message text, environmentId text);
create index TrialJobEvent_trialJobId on TrialJobEvent(trialJobId);
create index TrialJobEvent_event on TrialJobEvent(event);
create table MetricData (timestamp integer, trialJobId text, parameterId text, type text, sequence integer,
    data text);
create index MetricData_trialJobId on MetricData(trialJobId);
create index MetricData_type on MetricData(type);
create table ExperimentProfile (params text, id text, execDuration integer, startTime integer, endTime integer,
    logDir text, nextSequenceId integer, revision integer);
create index ExperimentProfile_id on ExperimentProfile(id);
"""


@dataclass(frozen=True)
class Row:
    """One row to be inserted into one of the three tables."""

    table: str
    values: tuple[Any, ...]


@dataclass
class StoredTrial:
    """A trial as the records show it: NNI knows its state only by replaying the events."""

    id: str
    sequence: int
    parameter_id: int
    parameters: dict[str, Any]
    state: str
    reported: dict[int, dict[str, Any]]
    final: dict[str, Any] | None = None


def now() -> int:
    """Return the time as NNI notes it, in milliseconds."""
    return int(time.time() * 1000)


def create_database(path: Path) -> None:
    """Make an empty database with NNI's tables.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "nni.sqlite")
        >>> create_database(path)
        >>> stored_trials(path)
        []
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = open_database(path)
    try:
        connection.executescript(_TABLES)
    finally:
        connection.close()


def open_database(path: Path, patience: float = 30.0) -> sqlite3.Connection:
    """Open a database for explicit transactions, also from another thread than the one that uses it."""
    connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    # A commit still survives the death of this process; only a power cut may cost the last second.
    connection.execute("pragma synchronous=normal")
    return connection


def event_row(
    trial: str,
    event: str,
    sequence: int,
    *,
    at: int,
    folder: Path,
    parameters: Mapping[str, Any] | None = None,
    parameter_id: int | None = None,
) -> Row:
    """Describe that a trial began (with its parameters) or ended."""
    data = None
    if parameters is not None:
        data = json.dumps(
            {
                "parameter_id": parameter_id,
                "parameter_source": "algorithm",
                "parameters": dict(parameters),
                "parameter_index": 0,
            }
        )
    return Row("TrialJobEvent", (at, trial, event, data, str(folder), sequence, None, ENVIRONMENT))


def metric_row(trial: str, parameter_id: int, kind: str, sequence: int, metrics: Mapping[str, Any], at: int) -> Row:
    """Describe a result, ``'PERIODICAL'`` or ``'FINAL'``; NNI stores it as JSON within JSON."""
    data = json.dumps(json.dumps(dict(metrics)))
    return Row("MetricData", (at, trial, str(parameter_id), kind, sequence, data))


def profile_row(
    configuration: Mapping[str, Any],
    experiment: str,
    folder: Path,
    *,
    started: int,
    seconds: int,
    ended: int | None,
    next_sequence: int,
    revision: int,
) -> Row:
    """Describe the experiment itself; the row with the largest revision counts."""
    values = (json.dumps(dict(configuration)), experiment, seconds, started, ended, str(folder))
    return Row("ExperimentProfile", (*values, next_sequence, revision))


def insert_rows(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Insert all rows in one transaction, or none.

    Raises:
        sqlite3.Error: The database is locked, full or damaged.
    """
    connection.execute("begin immediate")
    try:
        for row in rows:
            marks = ",".join("?" * len(row.values))
            connection.execute(f"insert into {row.table} values ({marks})", row.values)
        connection.execute("commit")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def stored_configuration(path: Path) -> tuple[dict[str, Any], int, int]:
    """Read an experiment's configuration, its start and the revision of its newest profile."""
    connection = open_database(path)
    try:
        row = connection.execute(
            "select params, startTime, revision from ExperimentProfile order by revision desc limit 1"
        ).fetchone()
    finally:
        connection.close()
    return (json.loads(row[0]), int(row[1]), int(row[2])) if row else ({}, now(), 0)


def stored_trials(path: Path) -> list[StoredTrial]:
    """Read all trials, in the order in which they began."""
    connection = open_database(path)
    try:
        trials: dict[str, StoredTrial] = {}
        for name, event, data, sequence in connection.execute(
            "select trialJobId, event, data, sequenceId from TrialJobEvent order by rowid"
        ):
            if name:
                _replay(trials, name, event, data, sequence)
        for name, kind, sequence, data in connection.execute(
            "select trialJobId, type, sequence, data from MetricData order by rowid"
        ):
            if name in trials:
                _attach(trials[name], kind, sequence, data)
    finally:
        connection.close()
    return list(trials.values())


def _replay(trials: dict[str, StoredTrial], name: str, event: str, data: str | None, sequence: Any) -> None:
    trial = trials.setdefault(name, StoredTrial(name, int(sequence or 0), 0, {}, event, {}))
    if event not in ("ADD_RESUMED", "ADD_HYPERPARAMETER"):
        trial.state = event
    if data and not trial.parameters:
        given = json.loads(data)
        trial.parameters = given.get("parameters") or {}
        trial.parameter_id = int(given.get("parameter_id") or 0)
        trial.sequence = int(sequence or 0)


def _attach(trial: StoredTrial, kind: str, sequence: int, data: str) -> None:
    value = json.loads(json.loads(data))
    metrics = value if isinstance(value, dict) else {"default": value}
    if kind == "FINAL":
        trial.final = metrics
    else:
        trial.reported[int(sequence)] = metrics
