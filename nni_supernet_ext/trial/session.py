"""A trial from its parameters to its final result."""

from __future__ import annotations

import json
import logging
import math
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from nni_supernet_ext._compat.nni_database import stored_configuration, stored_trials
from nni_supernet_ext._compat.nni_trial import TrialConnection, connect_trial
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.recording.finite import finite_only
from nni_supernet_ext.recording.whole import without_subnets
from nni_supernet_ext.trial.numbers import plain_numbers
from nni_supernet_ext.trial.parts import make_parts
from nni_supernet_ext.trial.reports import ReportLog
from nni_supernet_ext.trial.stop import StopSignals, TrialStopped, leave_by_signal
from nni_supernet_ext.trial.trainings import TrainingStarts

_logger = logging.getLogger(__name__)


class Trial:
    """Connect a script with the NNI experiment that started it, or run it alone.

    Inside the ``with`` block, strategies of this package report their epochs to the trial by themselves, and add
    every subnet that a search evaluates to the experiment as a finished trial, where its search space has the
    axis ``stage``. Of several ranks, which all run the script, the first one reports. The end by ``nnictl stop``
    or an assessor is clean; after ``nnictl resume`` the same trial goes on from what lies in :attr:`folder`, and
    reports nothing twice.

    Args:
        defaults: Parameters that the search space does not give, and all where no experiment started the script.
        metric: The logged metric that becomes ``default``. Default ``'val_acc'``.
        truth: Function from a sample to its benchmark accuracy: adds Kendall's tau over the validated subnets
            to every epoch's report.
        folder: Where to keep checkpoints when no experiment started the script. Default ``'trial_output'``. A
            script that runs there again replaces the reports of the time before from the first that it repeats.

    Attributes:
        parameters: The trial's parameters, the same after a resume.
        folder: The trial's folder, for checkpoints: the same after a resume.

    Raises:
        TrialStopped: From its creation to the end of the block, where NNI stops the trial or its manager is gone.
            Let it pass: at the end of the block it becomes an end of the process that NNI takes for a stopped
            trial.
        ConfigurationError: :attr:`shared_folder` of an experiment on another machine, or parameters that
            :meth:`parts` cannot use.

    Example:
        .. code-block:: python

            with Trial({"seed": 0}) as trial:
                strategy = SupernetStrategy(seed=trial.parameters["seed"], checkpoint_dir=trial.folder)
                NasExperiment(space, evaluator, strategy).run()
                trial.final()
    """

    def __init__(
        self,
        defaults: Mapping[str, Any] | None = None,
        *,
        metric: str = "val_acc",
        truth: Callable[[dict[str, Any]], float] | None = None,
        folder: str | Path = "trial_output",
    ) -> None:
        self._signals = StopSignals()
        # At once: NNI may stop the trial while it still imports or builds its model.
        self._signals.install()
        self.connection = connect_trial()
        self.folder = self.connection.folder if self.connection is not None else Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.connection is not None:
            self._keep_parameters(self.connection)
        given = self.connection.parameters if self.connection is not None else {}
        self.parameters: dict[str, Any] = {**(defaults or {}), **given}
        self.metric = metric
        self.truth = truth
        self._reports = ReportLog(self.folder / "reports.jsonl", again=self.connection is None)
        self._trainings = TrainingStarts(self.folder / "trainings.json", self._reports)
        self._recording: Any = None

    @property
    def shared_folder(self) -> Path:
        """A folder that all trials of the experiment share, where they run on one machine.

        It is ``shared`` in the experiment's own folder; in :attr:`folder` where no experiment started the script.

        Raises:
            ConfigurationError: The experiment's folder is on another machine.
        """
        if self.connection is not None and self.connection.experiment is None:
            raise ConfigurationError(
                "The experiment's folder is expected to be on this machine, but the trial runs on another one. "
                "Give the trials a folder of your own that all machines reach."
            )
        owner = self.connection.experiment if self.connection is not None else self.folder
        assert owner is not None
        shared = owner / "shared"
        shared.mkdir(exist_ok=True)
        return shared

    @property
    def last(self) -> dict[str, Any]:
        """The newest intermediate result."""
        entries = self._reports.entries
        return entries[max(entries)] if entries else {}

    def parts(self, key: str, known: Mapping[str, Any]) -> list[Any]:
        """Make the objects that a parameter names; see `nni_supernet_ext.trial.make_parts`."""
        return make_parts(self.parameters, key, known)

    def intermediate(self, index: int, metrics: Mapping[str, Any]) -> None:
        """Report an epoch, counted from 0, unless it was reported before.

        Args:
            index: Number of the epoch.
            metrics: Name -> number, with ``default``; tensors and arrays of one element count as numbers.

        Raises:
            ConfigurationError: A value is no number, or ``default`` is missing.
            TrialStopped: The manager is gone; the report is kept and sent after a resume.
        """
        numbers = plain_numbers(metrics)
        if not _rank() and self._reports.add(index, numbers):
            self._send("PERIODICAL", index, numbers)

    def final(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Report the final result.

        Args:
            metrics: With ``default``. Default: those of the best subnet that a search in this trial found, or
                the newest intermediate result where there was no search, without the parts for single subnets
                (``val_acc/smallest``): each name is an axis of the page.

        Raises:
            ConfigurationError: There is nothing to report, a value is no number, or ``default`` is missing.
            TrialStopped: The manager is gone.
        """
        self._flush()
        if _rank():
            return  # Its process knows an earlier start of the trial at best.
        found = self._recording.best if self._recording is not None else None
        if metrics is None:
            metrics = found or without_subnets(self.last)
        if not metrics:
            raise ConfigurationError(
                "Argument `metrics` is expected to be given where a trial has reported nothing, but got "
                f"{metrics!r}. Train or search first, with `record=True`, or give metrics with `default`."
            )
        numbers = plain_numbers(metrics)
        if not math.isfinite(numbers["default"]):
            _logger.warning(
                "The final `default` is %s, which no tuner ranks, and beside which NNI's page draws no lines of "
                "hyper-parameters. Give a number that is worse than all others: `trial.final({'default': ...})`.",
                numbers["default"],
            )
        self._send("FINAL", 0, numbers)

    def recording(self, mode: str = "max") -> Any:
        """Return what a strategy of this package reports to.

        Args:
            mode: ``'max'`` or ``'min'``: which of two values of the metric is better.
        """
        from nni_supernet_ext.recording.within_trial import WithinTrial

        if self._recording is None:
            self._recording = WithinTrial(
                self.intermediate, self.metric, self.truth, self._shared(), self._trainings.first
            )
        self._recording.mode = mode
        return self._recording

    def __enter__(self) -> Trial:
        from nni_supernet_ext.recording.destination import enter_trial

        self._repeat_lost_reports()
        enter_trial(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        from nni_supernet_ext.recording.destination import leave_trial

        leave_trial(self)
        self._flush()
        self._signals.restore()
        if isinstance(error, TrialStopped) and self.connection is not None:
            leave_by_signal(error.reason)

    # Inside

    def _keep_parameters(self, connection: TrialConnection) -> None:
        """Note the parameters at the first start, and take the same ones after a resume.

        With several trials at once NNI 3.0 hands parameters out in the order in which trials ask for them, after a
        resume in another one; this trial's checkpoint and reports belong to those of its first start.
        """
        path = self.folder / "parameters.json"
        if path.exists():
            noted = json.loads(path.read_text(encoding="utf-8"))
            connection.parameters, connection.parameter_id = noted["parameters"], noted["parameter_id"]
            return
        partial = path.with_suffix(".writing")
        noted = {"parameters": connection.parameters, "parameter_id": connection.parameter_id}
        partial.write_text(json.dumps(noted), encoding="utf-8")
        partial.replace(path)

    def _send(self, kind: str, index: int, metrics: Mapping[str, Any]) -> None:
        if self.connection is None:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            print(f"{kind.lower()} {index}: {shown}", flush=True)
            return
        try:
            self.connection.send(kind, index, finite_only(metrics, "default"))
        except OSError:  # `requests` derives its errors from it.
            raise TrialStopped("NNI's manager is gone") from None

    def _repeat_lost_reports(self) -> None:
        """Send what an earlier process of this trial noted but the manager never received."""
        if self.connection is None or self.connection.experiment is None or not self._reports.entries or _rank():
            return
        trials = stored_trials(self.connection.experiment / "db" / "nni.sqlite")
        received = {index for t in trials if t.id == self.connection.id for index in t.reported}
        for index in sorted(set(self._reports.entries) - received):
            self._send("PERIODICAL", index, self._reports.entries[index])

    def _shared(self) -> Path | None:
        """Return the experiment's folder if its search space asks for the subnets."""
        if self.connection is None or self.connection.experiment is None:
            return None
        try:
            configuration, _, _ = stored_configuration(self.connection.experiment / "db" / "nni.sqlite")
        except sqlite3.Error as error:
            _logger.warning("The experiment's records cannot be read: %s. Subnets are not added.", error)
            return None
        space = configuration.get("searchSpace") or {}
        return self.connection.experiment if "subnet" in space.get("stage", {}).get("_value", ()) else None

    def _flush(self) -> None:
        if self._recording is not None:
            self._recording.close()


def _rank() -> int:
    """Return this process's number among those that train together; 0 for a process alone."""
    from pytorch_lightning.utilities import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0)
