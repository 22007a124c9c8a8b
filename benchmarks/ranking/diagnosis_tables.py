"""Tables of what was measured while supernets train."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nni_supernet_ext.errors import DataError

STAGES = ("first", "middle", "last")


def summary(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown tables of the means over seeds."""
    if not lines:
        raise DataError("The file of results is expected to hold a line, but got none. Measure a method first.")
    if any("stages" not in line for line in lines):
        raise DataError(
            "The file is expected to hold results of `diagnose.py`, but got others. `summarize.py` reads rankings."
        )
    methods = list(dict.fromkeys(line["method"] for line in lines))
    stages = [_stages(line) for line in lines]
    distances = list(stages[0][STAGES[0]]["similarity"])
    parts = []
    for name in STAGES:
        titles = [f"after the {name} epoch", *(f"distance {d}" for d in distances), "small", "middle", "large"]
        rows = []
        for method in methods:
            found = [own[name] for line, own in zip(lines, stages, strict=True) if line["method"] == method]
            cosines = [_mean([entry["similarity"].get(d) for entry in found]) for d in distances]
            deviations = [_mean([entry["deviation"][i] for entry in found]) for i in range(3)]
            rows.append([method, *(f"{c:.3f}" for c in cosines), *(f"{d:.2e}" for d in deviations)])
        parts.append(_table(titles, rows))
    rows = []
    for method in methods:
        own = [line for line in lines if line["method"] == method]
        third = max(1, len(own[0]["variance"]) // 3)
        ends = slice(third), slice(-third, None)
        variances = [_mean([_mean(line["variance"][end]) for line in own]) for end in ends]
        taus = [_mean([line["complexity_convergence"]]) for line in own]
        rows.append([method, *(f"{v:.2e}" for v in variances), ", ".join(f"{tau:.2f}" for tau in taus)])
    titles = ["", "gradient variance, first third", "last third", "complexity with convergence, by seed"]
    return "\n\n".join([*parts, _table(titles, rows)])


def _stages(line: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what was measured by the name of its stage; older lines name none, but have all in order."""
    found = line["stages"]
    names = [entry.get("stage", name) for name, entry in zip(STAGES, found, strict=False)]
    if set(names) != set(STAGES):
        raise DataError(
            f"Results of {line['method']!r}, seed {line['seed']}, are expected to hold the stages "
            f"{', '.join(STAGES)}, but got {', '.join(names) or 'none'}. Remove the line and measure it again."
        )
    return dict(zip(names, found, strict=True))


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [titles, ["---"] * len(titles), *rows])
