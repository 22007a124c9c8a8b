"""Record inside an nnictl trial: epochs as its intermediate results, subnets beside it."""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.errors import SupernetError
from nni_supernet_ext.recording.epochs import EpochReports, Sink, Truth
from nni_supernet_ext.recording.quality import quality
from nni_supernet_ext.recording.record import ExperimentRecord
from nni_supernet_ext.recording.recording import Recording
from nni_supernet_ext.recording.whole import without_subnets

_logger = logging.getLogger(__name__)


class WithinTrial(Recording):
    """Report to the trial, and append subnets to the running experiment's own database.

    Args:
        sink: Receives the epochs of all trainings, counted through.
        metric: The metric that becomes ``default``.
        truth: Benchmark accuracy of a sample, or None.
        experiment: Folder of the experiment whose search space asks for subnets, or None.
        first: Function from a training's name to the number of its first epoch, the same after a resume.

    Attributes:
        mode: ``'max'`` where a larger ``default`` is better (default), else ``'min'``.
        best: Metrics of the best subnet so far.
    """

    def __init__(
        self,
        sink: Sink,
        metric: str,
        truth: Truth | None,
        experiment: Path | None,
        first: Callable[[str], int] = lambda training: 0,
    ) -> None:
        self._sink = sink
        self._metric = metric
        self._truth = truth
        self._experiment = experiment
        self._record: ExperimentRecord | None = None
        self._first = first
        self._begun: Counter[str] = Counter()
        self._warned = False
        self.mode = "max"
        self.best: dict[str, Any] | None = None

    def callbacks(self, training: str = "") -> list[pl.Callback]:
        """Return the reporter of epochs, which counts on from the trainings before it."""
        name = f"{training}#{self._begun[training]}"
        self._begun[training] += 1

        def sink(epoch: int, metrics: dict[str, float]) -> None:
            self._warn_of_another_default(epoch, metrics)
            self._sink(self._first(name) + epoch, metrics)

        return [EpochReports(sink, self._metric, self._truth)]

    def subnet(self, sample: Sample, metrics: Mapping[str, Any]) -> None:
        """Add a subnet to the experiment, where it is wanted there."""
        value = quality(metrics["default"], self.mode)
        if self.best is None or value > quality(self.best["default"], self.mode):
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

    def _warn_of_another_default(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Say once that an epoch is compared by its training loss."""
        if self._metric in metrics or self._warned:
            return
        self._warned = True
        _logger.warning(
            "Argument `metric` of Trial is expected to be a metric that every epoch logs, but epoch %d has no %r: "
            "its `default` is the training loss, which is better where it is smaller. Use one of %s.",
            epoch,
            self._metric,
            sorted(without_subnets(metrics).keys() - {"default"}),
        )

    def close(self) -> None:
        """Write what is pending."""
        if self._record is not None:
            self._record.close()
            self._record = None
