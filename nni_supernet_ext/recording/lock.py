"""One writer at a time."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO, Any

from nni_supernet_ext.errors import ConfigurationError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: not guarded.
    fcntl = None


class WriterLock:
    """Hold a file's lock for as long as the process lives or until it is released.

    Args:
        path: The lock's file.

    Raises:
        ConfigurationError: Another process, or another object of this one, holds it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "lock")
        >>> WriterLock(path).release()
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[str] | None = path.open("a", encoding="utf-8")
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            self._file = None
            raise ConfigurationError(
                f"The experiment {path.parent.parent.name} is expected to be recorded by one process at a "
                "time, but got a second one. Use another experiment, or wait for the first to end."
            ) from None

    def release(self) -> None:
        """Let others take it."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
