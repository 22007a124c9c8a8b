"""The most memory that one run needs, whatever ran in the process before."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class PeakMemory:
    """Measure from now on; a second one starts anew, for the first one too.

    Args:
        accelerator: Lightning's name of the device that trains.
    """

    def __init__(self, accelerator: str) -> None:
        self._on_gpu = accelerator in ("gpu", "cuda")
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
        try:
            _RESET.write_text("5")
            self._known = True
        except OSError:  # not Linux, or not allowed
            self._known = False

    def found(self) -> dict[str, int]:
        """Return megabytes: ``peak_memory_mb`` of the process where the system tells, ``peak_gpu_memory_mb``."""
        found = {}
        resident = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE) if self._known else None
        if resident:
            found["peak_memory_mb"] = int(resident[1]) // 1024
        if self._on_gpu:
            found["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() // 2**20
        return found
