"""The trial's own list of what it reported, so that nothing is reported twice or lost."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nni_supernet_ext.recording.lines import append_line

_logger = logging.getLogger(__name__)


class ReportLog:
    """Keep the intermediate results of a trial, by index, in memory and on disk.

    Args:
        path: File of JSON lines in the trial's folder.
        again: Whether the script runs once more in the same folder: the first result of an index that the file
            holds replaces that one and all after it that the file held. Default False: only what is new counts, as
            after a resume.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "reports.jsonl")
        >>> ReportLog(path).add(0, {"default": 0.1})
        True
        >>> again = ReportLog(path)
        >>> again.add(0, {"default": 0.2}), again.entries
        (False, {0: {'default': 0.1}})
    """

    def __init__(self, path: Path, again: bool = False) -> None:
        self._path = path
        self._before: set[int] = set()
        self.entries: dict[int, dict[str, Any]] = {}
        self._failed = False
        if not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # The last line of a killed trial may be cut.
            self.entries.setdefault(int(entry["index"]), entry["metrics"])
        if again:
            self._before = set(self.entries)

    def add(self, index: int, metrics: Mapping[str, Any]) -> bool:
        """Note a result; False if there is one of that index that stays."""
        if index in self.entries and index not in self._before:
            return False
        stale = {known for known in self._before if known >= index} if index in self._before else set()
        self._before -= stale
        for known in stale:
            del self.entries[known]
        self.entries[index] = dict(metrics)
        try:
            if stale:
                self._write()
            else:
                append_line(self._path, _line(index, metrics))
        except OSError as error:
            if not self._failed:
                _logger.warning("%s cannot be written: %s. The trial goes on.", self._path, error)
            self._failed = True
        return True

    def _write(self) -> None:
        """Write all of it, in one moment: who is killed meanwhile finds what was there before."""
        partial = self._path.with_suffix(".writing")
        partial.write_text("".join(f"{_line(*entry)}\n" for entry in self.entries.items()), encoding="utf-8")
        partial.replace(self._path)


def _line(index: int, metrics: Mapping[str, Any]) -> str:
    return json.dumps({"index": index, "metrics": dict(metrics)})
