"""The work folder of a run: held by one process at a time, and of one protocol."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from protocols import Protocol

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.recording.lock import WriterLock


@contextlib.contextmanager
def held(folder: Path, patience: float = 1.0) -> Iterator[None]:
    """Hold a folder, waiting for as long as another process works in it.

    The lock is a file beside the folder, which may come and go. It ends with its process, however that ends.

    Args:
        folder: The folder.
        patience: Seconds between two attempts.
    """
    lock = _lock(folder, patience)
    try:
        yield
    finally:
        lock.release()


def _lock(folder: Path, patience: float) -> WriterLock:
    path = folder.with_name(f"{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        try:
            return WriterLock(path)
        except ConfigurationError:
            if not told:
                print(f"{folder.name}: another process is at it; waiting for its end", flush=True)
            told = True
            time.sleep(patience)


def make_folder(folder: Path, protocol: Protocol) -> None:
    """Make a run's folder, afresh where it holds a run under other settings."""
    path = folder / "protocol.json"
    if folder.exists() and (not path.exists() or _protocol(path) != protocol):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(protocol.as_dict(), sort_keys=True), encoding="utf-8")


def _protocol(path: Path) -> Protocol | None:
    """Read a protocol; None where the file was not written to its end."""
    try:
        return Protocol(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError):
        return None
