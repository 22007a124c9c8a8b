"""Latencies of the NAS-Bench-201 architectures on devices."""

from __future__ import annotations

import os
from pathlib import Path

from nni_supernet_ext.benchmarks.oracle import check_choice
from nni_supernet_ext.benchmarks.tables import TableFormat, load_table
from nni_supernet_ext.errors import ConfigurationError, DataError

_FORM = TableFormat(
    name="HW-NAS-Bench",
    file="nasbench201_hw",
    source="the measurements are published as `HW-NAS-Bench-v1_0.pickle` by its authors (GATECH-EIC/HW-NAS-Bench)",
)
_SUFFIX = "_latency"
_HELP = "help_"


def beside(path: str | os.PathLike[str] | None) -> Path | None:
    """Return the folder of a table, where the latencies are expected too."""
    if path is None:
        return None
    place = Path(path)
    return place if place.is_dir() else place.parent


def latency(path: str | os.PathLike[str] | None, index: int, device: str, dataset: str) -> float:
    """Look up a latency.

    Args:
        path: Table, its folder, or None for the environment variable's folder.
        index: Official index of the architecture.
        device: Name of the device.
        dataset: Prefix of the data set's columns.

    Returns:
        Milliseconds.

    Raises:
        ConfigurationError: There is no such device, or it was not measured on the data set.
        DataError: The table, the architecture or its value is absent.
    """
    table = load_table(path, _FORM)
    prefix = f"{dataset}_"
    devices = [name[len(prefix) : -len(_SUFFIX)] for name in table if name.startswith(prefix) and _SUFFIX in name]
    others = [name for name in table if name.startswith(_HELP)]
    check_choice("device", device, devices + others)
    if device in others and dataset != "c10":
        raise ConfigurationError(
            f"Argument `dataset` is expected to be 'cifar10' for the device {device!r}, but got another. Use "
            f"one of {devices} for other data sets."
        )
    column = table[device if device in others else f"{prefix}{device}{_SUFFIX}"]
    rows = (table["index"] == index).nonzero()[0] if "index" in table else [index]
    value = float(column[rows[0]]) if len(rows) and rows[0] < len(column) else float("nan")
    if not value >= 0:
        raise DataError(
            f"Device {device!r} is expected to have a latency of architecture {index}, but got none: it was not "
            "measured, or the device cannot run it. Leave the architecture out, or ask for another device."
        )
    return value
