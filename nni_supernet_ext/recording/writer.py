"""Write rows to an experiment's database from one thread, many rows to a commit."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path

from nni_supernet_ext._compat.nni_database import Row, insert_rows, open_database

_logger = logging.getLogger(__name__)


class BatchWriter:
    """Append rows in the background, in one commit a second at most.

    NNI's manager reads and writes the same file; a commit for every subnet would lock it out and end its
    experiment in ERROR. What cannot be written (disk full, database locked) stays in memory in order and is
    tried again until it succeeds or the writer is closed; that is said once. Nothing is ever raised into the
    training.

    Args:
        path: The database, which exists.
        interval: Seconds between two commits. Default 1.

    Attributes:
        commits: Number of commits made.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext._compat.nni_database import create_database, metric_row, now
        >>> path = Path(tempfile.mkdtemp(), "nni.sqlite")
        >>> create_database(path)
        >>> writer = BatchWriter(path)
        >>> writer.add(metric_row("abcde", 0, "FINAL", 0, {"default": 0.5}, now()))
        >>> writer.close()
        0
    """

    def __init__(self, path: Path, interval: float = 1.0) -> None:
        self.path = path
        self.interval = interval
        self.commits = 0
        self._pending: list[Row] = []
        self._changed = threading.Condition()
        self._closing = False
        self._deadline = float("inf")
        self._failing = False
        self._thread = threading.Thread(target=self._loop, name="nni-recording", daemon=True)
        self._thread.start()

    def add(self, *rows: Row) -> None:
        """Have rows written soon; returns at once. Rows of one call are written together."""
        with self._changed:
            idle = not self._pending
            self._pending.extend(rows)
            if idle:  # Otherwise the thread waits for its next commit anyway.
                self._changed.notify()

    def close(self, patience: float = 10.0) -> int:
        """Write what is pending and end the thread.

        Args:
            patience: Seconds to go on trying where writing fails. Default 10.

        Returns:
            Number of rows that could not be written, normally 0.
        """
        with self._changed:
            self._closing = True
            self._deadline = time.monotonic() + patience
            self._changed.notify()
        self._thread.join(patience + 35.0)
        lost = len(self._pending)
        if lost:
            _logger.error("%d rows could not be written to %s and are lost.", lost, self.path)
        return lost

    def _loop(self) -> None:
        last = -float("inf")
        while True:
            with self._changed:
                while not self._pending and not self._closing:
                    self._changed.wait()
                pause = last + self.interval - time.monotonic()
                if pause > 0 and not (self._closing and not self._failing):
                    self._changed.wait(pause)
                    if time.monotonic() < last + self.interval and not self._closing:
                        continue
                rows = list(self._pending)
                leave = self._closing
            written = self._write(rows) if rows else True
            last = time.monotonic()
            if leave and (written or last > self._deadline):
                return

    def _write(self, rows: list[Row]) -> bool:
        try:
            # A connection of its own each time: none has to survive a fork of the training process.
            connection = open_database(self.path, patience=5.0)
            try:
                insert_rows(connection, rows)
            finally:
                connection.close()
        except sqlite3.Error as error:
            if not self._failing:
                _logger.warning(
                    "Recording to %s waits: %s. The run goes on; rows are kept and tried again.", self.path, error
                )
            self._failing = True
            return False
        if self._failing:
            _logger.warning("Recording to %s goes on.", self.path)
        self._failing = False
        self.commits += 1
        with self._changed:
            del self._pending[: len(rows)]
        return True
