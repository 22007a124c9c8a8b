"""Processes side by side, which end with the process that started them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path


def side_by_side(script: Path, arguments: Sequence[str], jobs: int) -> None:
    """Start a script several times, each with its own share of the runs, and wait for all.

    Args:
        script: Takes ``--jobs``, ``--part`` (number and count of the shares) and ``--parent`` (a process).
        arguments: The other arguments; of an argument given twice the last counts, so that ``--jobs`` among them
            does no harm.
        jobs: Number of processes.
    """
    own = ["--jobs", "1", "--parent", str(os.getpid())]
    command = [sys.executable, str(script), *arguments, *own]
    started = [subprocess.Popen([*command, "--part", f"{part}/{jobs}"]) for part in range(jobs)]
    codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit(f"{sum(map(bool, codes))} of {jobs} processes failed; give the command again to go on.")


def end_with_parent(parent: int, interval: float = 0.5) -> None:
    """End this process, as a kill would, when the one that started it is gone.

    Args:
        parent: Process that started this one.
        interval: Seconds between two looks.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
