"""Read what ``nnictl experiment export`` wrote."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.recording.axes import STAGE, STAGES, sample_from_parameters
from nni_supernet_ext.recording.quality import quality


@dataclass(frozen=True)
class ExportedSubnet:
    """A subnet of an exported search.

    Attributes:
        sample: Architecture, for ``Supernet.activate`` and ``Supernet.extract``.
        metrics: Its results, with ``default``.
        trial: Identity of its trial.

    Example:
        >>> best = ExportedSubnet({'width': 4, 'op': 'conv'}, {'default': 0.5}, trial='a')
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> network = toy_supernet().extract(best.sample)
    """

    sample: dict[str, Any]
    metrics: dict[str, float]
    trial: str


def read_export(path: str | Path, domain: Domain, mode: str = "max") -> list[ExportedSubnet]:
    """Read the subnets of ``nnictl experiment export``, best first.

    Args:
        path: The exported file, ``.json`` or ``.csv``.
        domain: Choices of the model space.
        mode: ``'max'`` or ``'min'``: which of two values of ``default`` is better.

    Returns:
        The subnets; trials of other stages, such as the supernet's training, are left out. A metric that was not
        finite is NaN, and worse than every number.

    Raises:
        ConfigurationError: ``mode`` is neither.
        DataError: The file is not such an export.
        SpaceError: A subnet does not fit the space.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> path = Path(tempfile.mkdtemp(), "export.json")
        >>> parameter = {"stage": "subnet", "op": "conv", "width": 4}
        >>> trial = {"parameter": parameter, "value": '{"default": 0.5}', "trialJobId": "a"}
        >>> _ = path.write_text(json.dumps([trial]))
        >>> supernet = toy_supernet()
        >>> best = read_export(path, supernet.domain)[0]
        >>> network = supernet.extract(best.sample)
        >>> best
        ExportedSubnet(sample={'width': 4, 'op': 'conv'}, metrics={'default': 0.5}, trial='a')
    """
    if mode not in ("max", "min"):
        raise ConfigurationError(
            f"Argument `mode` is expected to be 'max' or 'min', but got {mode!r}. Use 'max' where larger values of "
            "`default` are better."
        )
    path = Path(path)
    try:
        rows = _read_csv(path) if path.suffix == ".csv" else _read_json(path)
    except (KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
        raise DataError(
            f"The file {path} is expected to come from `nnictl experiment export`, but got {error!r} in it. "
            "Export again, with `--type json`."
        ) from error
    # A column of a table is empty where another trial lacks it.
    rows = [row for row in rows if (row[0].get(STAGE) or STAGES[1]) == STAGES[1]]
    unknown = dict.fromkeys((name for _, metrics, _ in rows for name in metrics), math.nan)
    subnets = [
        ExportedSubnet(sample_from_parameters(parameters, domain), unknown | metrics, trial)
        for parameters, metrics, trial in rows
    ]
    return sorted(subnets, key=lambda subnet: quality(subnet.metrics["default"], mode), reverse=True)


Rows = list[tuple[dict[str, Any], dict[str, float], str]]


def _read_json(path: Path) -> Rows:
    return [
        (entry["parameter"], _metrics(entry["value"]), entry["trialJobId"])
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]


def _read_csv(path: Path) -> Rows:
    """NNI writes a column for each parameter and each metric, and ``reward`` for ``default``."""
    rows: Rows = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            trial = row.pop("trialJobId")
            if "reward" not in row and "default" not in row:
                raise KeyError("reward")
            metrics = {"default": _number(row.pop("reward", None) or row.get("default"))}
            rows.append((row, metrics, trial))
    return rows


def _metrics(value: Any) -> dict[str, float]:
    """NNI exports metrics as JSON within JSON; a number stands for ``default``."""
    while isinstance(value, str) and value:
        value = json.loads(value)
    metrics = value if isinstance(value, dict) else {"default": value}
    return {"default": math.nan} | {name: _number(metric) for name, metric in metrics.items()}


def _number(value: Any) -> float:
    """JSON has no NaN: what was not finite was written as null or not at all."""
    return math.nan if value is None or value == "" else float(value)
