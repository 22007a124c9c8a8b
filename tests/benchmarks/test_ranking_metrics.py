"""A run whose predictions are not all numbers has a line, and one without truths is refused before it trains."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from nni_supernet_ext.benchmarks import DigitCellsOracle
from nni_supernet_ext.errors import DataError

from .test_ranking_command import ground, small

ROWS = list(range(0, 729, 20))


def line_metrics(scripts: Any, **found: Any) -> dict[str, float]:
    oracle = DigitCellsOracle()
    return scripts["metrics"].line_metrics(found, small(scripts), oracle, ground(scripts), ROWS)


def test_predictions_that_are_no_numbers_leave_metrics_undefined(scripts: Any) -> None:
    rng = np.random.default_rng(0)
    predicted, losses = rng.normal(size=len(ROWS)), rng.normal(size=len(ROWS))
    whole = line_metrics(scripts, predicted=predicted, predicted_loss=losses)
    assert not any(map(math.isnan, whole.values()))

    losses[3] = math.nan  # a subnet whose activations overflow
    diverged = line_metrics(scripts, predicted=predicted, predicted_loss=losses)
    assert {name for name, value in diverged.items() if math.isnan(value)} == {"tau_by_loss"}
    assert diverged == pytest.approx({**whole, "tau_by_loss": math.nan}, nan_ok=True)

    lost = line_metrics(scripts, predicted=[None, *predicted[1:]])  # as a file of results has it
    known = {name: value for name, value in lost.items() if not math.isnan(value)}
    assert known == {name: whole[name] for name in ("best_possible", "params_tau")}


def test_infinite_predictions_have_every_metric_but_the_linear_one(scripts: Any) -> None:
    predicted = np.random.default_rng(0).normal(size=len(ROWS))
    lowest = predicted.argmin()
    finite = line_metrics(scripts, predicted=predicted)
    predicted[lowest] = -math.inf  # the log-determinant of a subnet in which two examples switch all units alike
    found = line_metrics(scripts, predicted=predicted)
    assert found == pytest.approx({**finite, "pearson": math.nan}, nan_ok=True)


def test_missing_truths_are_refused_before_training(scripts: Any, tmp_path: Any, monkeypatch: Any) -> None:
    oracle = DigitCellsOracle()
    columns = {name: column.copy() for name, column in oracle.table.items()}
    columns["test_1"][5] = math.nan
    gap = DigitCellsOracle.from_columns(columns)
    grounds = scripts["grounds"].GROUNDS
    monkeypatch.setitem(
        grounds, "digit_cells", dataclasses.replace(grounds["digit_cells"], oracle=lambda folder: gap)
    )
    monkeypatch.setattr(scripts["run"], "trained_supernet", None)
    command = ["--protocol", "small", "--methods", "spos", "--out", str(tmp_path / "out.jsonl")]
    with pytest.raises(DataError, match="1 of 729, the first in row 5"):
        scripts["run"].main([*command, "--set", "architectures=all"])
