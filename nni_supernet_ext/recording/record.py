"""The records of one experiment: trials that run in this process, and subnets that are finished already."""

from __future__ import annotations

import json
import logging
import random
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nni_supernet_ext._compat.nni_database import (
    FINISHED,
    StoredTrial,
    event_row,
    metric_row,
    now,
    stored_trials,
)
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.recording.axes import STAGE, STAGES, subnet_parameters
from nni_supernet_ext.recording.finite import finite_only
from nni_supernet_ext.recording.lock import WriterLock
from nni_supernet_ext.recording.writer import BatchWriter

_logger = logging.getLogger(__name__)


class ExperimentRecord:
    """Append trials to an experiment's database; the only writer of this kind for as long as it is open.

    What the database holds already is read once: a search that is resumed adds no subnet twice, and a training
    no intermediate result. Another search adds what it finds otherwise, and that is said.

    Args:
        folder: The experiment's folder, which holds ``db/nni.sqlite``.

    Raises:
        ConfigurationError: Another process records to the same experiment.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext._compat.nni_database import create_database
        >>> folder = Path(tempfile.mkdtemp())
        >>> create_database(folder / "db" / "nni.sqlite")
        >>> record = ExperimentRecord(folder)
        >>> record.subnet({"op": "conv"}, {"default": 0.5})
        True
        >>> record.subnet({"op": "conv"}, {"default": 0.5})
        False
        >>> record.close()
        0
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "db" / "nni.sqlite"
        self._lock = WriterLock(folder / "db" / "recorder.lock")
        trials = stored_trials(self.database)
        self._trials = {trial.id: trial for trial in trials}
        self._next = max((trial.sequence for trial in trials), default=-1) + 1
        self._next_parameter = max((trial.parameter_id for trial in trials), default=-1) + 1
        self._known: dict[str, list[Any]] = {}
        for trial in trials:
            if trial.state == "SUCCEEDED":
                self._known.setdefault(_key(trial.parameters), []).append(trial.final)
        self._warned = False
        self._since = now()
        self.writer = BatchWriter(self.database)

    @property
    def next_sequence(self) -> int:
        """Number of the trial that would begin next."""
        return self._next

    def begin(self, parameters: Mapping[str, Any]) -> RecordedTrial:
        """Begin a trial that runs in this process."""
        stored = StoredTrial(_new_id(), self._next, self._next_parameter, dict(parameters), "RUNNING", {})
        self._next += 1
        self._next_parameter += 1
        self.writer.add(self._event(stored, "RUNNING", now(), stored.parameters))
        return RecordedTrial(self, stored)

    def unfinished(self, stage: str = STAGES[0], failed: bool = False) -> RecordedTrial | None:
        """Return the trial of a stage that an interrupted process left, if there is one.

        Args:
            stage: Which trials to look at.
            failed: Whether a newest trial that has ended, but not well, counts too, and runs again from now on:
                ``nnictl resume`` cannot go on with it and notes that it failed.
        """
        known = [trial for trial in self._trials.values() if trial.parameters.get(STAGE) == stage]
        for trial in known:
            if trial.state not in FINISHED:
                return RecordedTrial(self, trial)
        if not failed or not known or known[-1].state == "SUCCEEDED":
            return None
        known[-1].state = "RUNNING"
        self.writer.add(self._event(known[-1], "RUNNING", now()))
        return RecordedTrial(self, known[-1])

    def finished(self, stage: str = STAGES[0]) -> bool:
        """Tell whether a trial of a stage has ended well."""
        return any(t.parameters.get(STAGE) == stage and t.state == "SUCCEEDED" for t in self._trials.values())

    def subnet(self, sample: Sample, metrics: Mapping[str, Any]) -> bool:
        """Add an evaluated subnet as a finished trial.

        Args:
            sample: Architecture.
            metrics: Results, with ``default``; every subnet should have the same names, or the page's plot
                breaks off. What is not finite is left out.

        Returns:
            False if that architecture was there already, with these results.
        """
        parameters, final = subnet_parameters(sample), finite_only(metrics)
        key = _key(parameters)
        known = self._known.setdefault(key, [])
        if final in known:
            return False
        if known:
            self._warn_of_another_search()
        known.append(final)
        trial = StoredTrial(_new_id(), self._next, self._next_parameter, parameters, "SUCCEEDED", {})
        self._next += 1
        self._next_parameter += 1
        began, ended = self._since, now()
        self._since = ended
        self.writer.add(
            self._event(trial, "RUNNING", began, parameters),
            metric_row(trial.id, trial.parameter_id, "FINAL", 0, final, ended),
            self._event(trial, "SUCCEEDED", ended),
        )
        return True

    def _warn_of_another_search(self) -> None:
        if not self._warned:
            _logger.warning(
                "The experiment %s holds other results of the same architectures, of other weights or another "
                "metric. They stay beside the new ones; use another id to keep searches apart.",
                self.folder.name,
            )
        self._warned = True

    def close(self) -> int:
        """Write what is pending and let others write; return the number of rows that were lost."""
        lost = self.writer.close()
        self._lock.release()
        return lost

    def _event(self, trial: StoredTrial, event: str, at: int, parameters: Mapping[str, Any] | None = None) -> Any:
        return event_row(
            trial.id,
            event,
            trial.sequence,
            at=at,
            folder=self.folder / "trials" / trial.id,
            parameters=parameters,
            parameter_id=trial.parameter_id,
        )


class RecordedTrial:
    """A trial that runs in this process.

    Args:
        record: Where it is recorded.
        stored: What is known of it.

    Attributes:
        stored: What is known of it, up to date.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext._compat.nni_database import create_database
        >>> folder = Path(tempfile.mkdtemp())
        >>> create_database(folder / "db" / "nni.sqlite")
        >>> record = ExperimentRecord(folder)
        >>> trial = record.begin({"stage": "supernet"})
        >>> trial.intermediate(0, {"default": 0.4})
        >>> trial.finish({"default": 0.5})
        >>> trial.stored.state, trial.stored.reported
        ('SUCCEEDED', {0: {'default': 0.4}})
        >>> record.close()
        0
    """

    def __init__(self, record: ExperimentRecord, stored: StoredTrial) -> None:
        self._record = record
        self.stored = stored

    def intermediate(self, index: int, metrics: Mapping[str, Any]) -> None:
        """Add the intermediate result of an epoch, counted from 0, unless it is there already."""
        if index in self.stored.reported:
            return
        self.stored.reported[index] = finite_only(metrics)
        trial = self.stored
        self._record.writer.add(
            metric_row(trial.id, trial.parameter_id, "PERIODICAL", index, trial.reported[index], now())
        )

    def contradicts(self, index: int, metrics: Mapping[str, Any]) -> bool:
        """Tell whether the trial has another result of an epoch: it is the trial of another training then."""
        return index in self.stored.reported and self.stored.reported[index] != finite_only(metrics)

    def finish(self, metrics: Mapping[str, Any] | None, state: str = "SUCCEEDED") -> None:
        """End the trial, with its final result where there is one."""
        trial, rows = self.stored, []
        if metrics is not None and trial.final is None:
            trial.final = finite_only(metrics)
            rows.append(metric_row(trial.id, trial.parameter_id, "FINAL", 0, trial.final, now()))
        trial.state = state
        self._record.writer.add(*rows, self._record._event(trial, state, now()))


def _new_id() -> str:
    return "".join(random.SystemRandom().choices(string.ascii_letters + string.digits, k=5))


def _key(parameters: Mapping[str, Any]) -> str:
    return json.dumps({str(k): v for k, v in parameters.items()}, sort_keys=True, default=str)
