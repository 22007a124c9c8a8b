"""Record a ``NasExperiment`` of a Python script as an experiment that NNI's own tools can show."""

from __future__ import annotations

import logging
import signal
import threading
import time
import weakref
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any

import pytorch_lightning as pl
from torch import nn

from nni_supernet_ext._compat.nni_database import (
    StoredTrial,
    create_database,
    now,
    profile_row,
    stored_configuration,
)
from nni_supernet_ext._compat.nni_experiment import RunningExperiment, experiment_configuration
from nni_supernet_ext._compat.nni_manager import list_experiment, update_listed
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.recording.axes import STAGE, STAGES, search_axes
from nni_supernet_ext.recording.epochs import EpochReports
from nni_supernet_ext.recording.page import Page
from nni_supernet_ext.recording.record import ExperimentRecord, RecordedTrial
from nni_supernet_ext.recording.recording import Recording
from nni_supernet_ext.recording.whole import without_subnets

_logger = logging.getLogger(__name__)
_PROFILE_SECONDS = 10.0
_trainings: weakref.WeakKeyDictionary[nn.Module, StoredTrial] = weakref.WeakKeyDictionary()


class OwnExperiment(Recording):
    """Give a running ``NasExperiment`` NNI's records, its entry in nnictl's list and, with a port, its page.

    Args:
        running: The experiment.
        domain: The space's choices.
        model: The supernet.
        training: Whether a training is recorded, and not a search.
        metric: Name of the metric that becomes ``default``.
        mode: ``'max'`` or ``'min'``.

    Raises:
        OSError: The folder cannot be written.
        sqlite3.Error: The database cannot be written.
        ConfigurationError: Another process records to the same experiment.
    """

    def __init__(
        self,
        running: RunningExperiment,
        domain: Domain,
        model: nn.Module,
        *,
        training: bool,
        metric: str,
        mode: str,
    ) -> None:
        self._running = running
        self._model = model
        self._training = training
        self._metric = metric
        self._configuration = experiment_configuration(
            running.name or f"{type(model).__name__} {'training' if training else 'search'}",
            running.working_directory,
            search_axes(domain),
            mode,
        )
        folder = running.working_directory / running.id
        self._database = folder / "db" / "nni.sqlite"
        self._started, self._revision = now(), 0
        if not self._database.exists():
            create_database(self._database)
        else:
            _, self._started, self._revision = stored_configuration(self._database)
        self._record = ExperimentRecord(folder)
        self._trial: RecordedTrial | None = None
        self._profiled = 0.0
        self._page: Page | None = None
        self._handler: Any = None

    def callbacks(self, training: str = "") -> list[pl.Callback]:
        """Return the reporter of epochs."""
        assert self._trial is not None
        return [EpochReports(self._epoch, self._metric)]

    def subnet(self, sample: Sample, metrics: Mapping[str, Any]) -> None:
        """Add a subnet."""
        self._record.subnet(sample, metrics)
        self._profile()

    def __enter__(self) -> OwnExperiment:
        self._profile(force=True)
        self._show_training()
        self._list("RUNNING")
        if self._running.port is not None:
            self._page = Page.open(self._running.id, self._configuration, self._running.port)
            self._list("RUNNING")  # The manager has just written itself into the list.
        self._running.closing.append(self._stop)
        # What `nnictl stop` sends; without a handler Python ends at once, without saving anything.
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ):
            self._handler = signal.signal(signal.SIGTERM, _leave)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
        if self._trial is not None and self._training:
            self._finish_training(kind)
        self._profile(force=True, ended=now())
        self._record.close()
        if kind is None:
            update_listed(self._running.id, status="DONE", endTime=now())

    # Inside

    def _show_training(self) -> None:
        """Begin or go on with the trial of the supernet; a search shows the one of this process, if any."""
        if self._training:
            trial = self._record.unfinished(failed=self._running.resumed)
            self._trial = trial if trial is not None else self._record.begin({STAGE: STAGES[0]})
            return
        known = _trainings.get(self._model)
        if known is None or self._record.finished():
            return
        shown = self._record.begin(known.parameters)
        for index, metrics in known.reported.items():
            shown.intermediate(index, self._compared(metrics))
        # Of the same metrics as the subnets beside it, as far as it has them: each is an axis of the page.
        final = without_subnets(self._compared(known.final or {}))
        shown.finish({n: v for n, v in final.items() if not n.startswith(("train_", "train/"))} or None)

    def _compared(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return a training's metrics with the search's own as ``default``, if it has it."""
        others = {name: value for name, value in metrics.items() if name != "default"}
        return {"default": metrics[self._metric], **others} if self._metric in metrics else others

    def _epoch(self, index: int, metrics: dict[str, float]) -> None:
        assert self._trial is not None
        if index == 0 and not self._running.resumed and self._trial.contradicts(index, metrics):
            # `run` from the start, on an experiment that was interrupted: the old curve ends here.
            self._trial.finish(None, "USER_CANCELED")
            self._trial = self._record.begin({STAGE: STAGES[0]})
        self._trial.intermediate(index, metrics)
        self._profile()

    def _finish_training(self, kind: type[BaseException] | None) -> None:
        assert self._trial is not None
        if kind is None:
            reported = self._trial.stored.reported
            self._trial.finish(reported[max(reported)] if reported else None)
            _trainings[self._model] = self._trial.stored
        elif issubclass(kind, Exception):
            self._trial.finish(None, "FAILED")
        # Interrupted: it stays RUNNING in the records, as NNI leaves it too, and is gone on with.

    def _profile(self, force: bool = False, ended: int | None = None) -> None:
        if not force and time.monotonic() < self._profiled + _PROFILE_SECONDS:
            return
        self._profiled = time.monotonic()
        self._revision += 1
        self._record.writer.add(self._profile_row(ended))

    def _profile_row(self, ended: int | None) -> Any:
        return profile_row(
            self._configuration.json(),
            self._running.id,
            self._database.parents[1],
            started=self._started,
            seconds=(now() - self._started) // 1000,
            ended=ended,
            next_sequence=self._record.next_sequence,
            revision=self._revision,
        )

    def _list(self, status: str) -> None:
        list_experiment(
            self._running.id,
            self._configuration.experiment_name,
            self._running.working_directory,
            port=self._page.port if self._page is not None else None,
            status=status,
            started=self._started,
        )

    def _stop(self) -> None:
        """End the page when the experiment is stopped."""
        if self._page is not None:
            self._page.close()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
