"""Record inside an nnictl trial: epochs as its intermediate results, subnets beside it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.errors import SupernetError
from nni_supernet_ext.recording.epochs import EpochReports, Sink, Truth
from nni_supernet_ext.recording.record import ExperimentRecord
from nni_supernet_ext.recording.recording import Recording

_logger = logging.getLogger(__name__)


class WithinTrial(Recording):
    """Report to the trial, and append subnets to the running experiment's own database.

    Args:
        sink: Receives the epochs.
        metric: The metric that becomes ``default``.
        truth: Benchmark accuracy of a sample, or None.
        experiment: Folder of the experiment whose search space asks for subnets, or None.

    Attributes:
        sign: 1 where a larger ``default`` is better (default), else -1.
        best: Metrics of the best subnet so far.
    """

    def __init__(self, sink: Sink, metric: str, truth: Truth | None, experiment: Path | None) -> None:
        self._sink = sink
        self._metric = metric
        self._truth = truth
        self._experiment = experiment
        self._record: ExperimentRecord | None = None
        self._trainings: list[EpochReports] = []
        self.sign = 1
        self.best: dict[str, Any] | None = None

    def callbacks(self) -> list[pl.Callback]:
        """Return the reporter of epochs, which counts on from the trainings before it."""
        first = sum(reports.length for reports in self._trainings)
        self._trainings.append(EpochReports(self._sink, self._metric, self._truth, first))
        return [self._trainings[-1]]

    def subnet(self, sample: Sample, metrics: Mapping[str, Any]) -> None:
        """Add a subnet to the experiment, where it is wanted there."""
        if self.best is None or self.sign * metrics["default"] > self.sign * self.best["default"]:
            self.best = dict(metrics)
        if self._experiment is None:
            return
        if self._record is None:
            try:
                self._record = ExperimentRecord(self._experiment)
            except (OSError, sqlite3.Error, SupernetError) as error:
                _logger.warning("The subnets are not added to the experiment: %s The run goes on.", error)
                self._experiment = None
                return
        self._record.subnet(sample, metrics)

    def close(self) -> None:
        """Write what is pending."""
        if self._record is not None:
            self._record.close()
            self._record = None
