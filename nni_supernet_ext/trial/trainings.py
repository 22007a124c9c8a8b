"""Where each training of a trial begins among its reports."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from nni_supernet_ext.trial.reports import ReportLog

_logger = logging.getLogger(__name__)


class TrainingStarts:
    """Number the epochs of several trainings through, the same way after a resume.

    A training begins after everything that was reported before its first report, and keeps that place: a resumed
    trial may train only some of the trainings again.

    Args:
        path: File in the trial's folder. A folder that has reports but no such file is of an older version, in
            which the first training began at 0.
        reports: The trial's reports.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> log = ReportLog(folder / "reports.jsonl")
        >>> starts = TrainingStarts(folder / "trainings.json", log)
        >>> starts.first("part-0"), log.add(0, {"default": 0.1}), starts.first("part-1"), starts.first("part-0")
        (0, True, 1, 0)
    """

    def __init__(self, path: Path, reports: ReportLog) -> None:
        self._path = path
        self._reports = reports
        self._old = bool(reports.entries) and not path.exists()
        self._starts: dict[str, int] = {}
        if path.exists():
            self._starts = json.loads(path.read_text(encoding="utf-8"))
        elif not self._old:
            self._write()

    def first(self, training: str) -> int:
        """Return the number of a training's first epoch; its first call settles it."""
        if training not in self._starts:
            from_zero = self._old and not self._starts
            self._starts[training] = 0 if from_zero else max(self._reports.entries, default=-1) + 1
            self._write()
        return self._starts[training]

    def _write(self) -> None:
        partial = self._path.with_suffix(".writing")
        try:
            partial.write_text(json.dumps(self._starts), encoding="utf-8")
            partial.replace(self._path)
        except OSError as error:
            _logger.warning("%s cannot be written: %s. The trial goes on.", self._path, error)
