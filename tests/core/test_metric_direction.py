"""A metric optimised against its name is told of, and nothing is refused."""

from __future__ import annotations

import logging

import pytest

from nni_supernet_ext.callbacks import RankingConsistency
from nni_supernet_ext.core.metric_direction import usual_mode
from nni_supernet_ext.strategies import SupernetEvolution
from nni_supernet_ext.testing import MethodCase
from nni_supernet_ext.testing.training import train

SMALLER = ["val_mse", "val_loss", "mae", "val_rmse", "val_error", "top1_err", "perplexity", "Val/Loss"]
LARGER = ["val_acc", "accuracy", "val_auc", "val_f1", "val_acc1", "acc/clean"]
UNKNOWN = ["val_score", "glossary", "accelerate", "terror", "neg_loss", "acc_minus_loss", "kendall_tau", ""]


@pytest.mark.parametrize(
    ("name", "mode"), [*((n, "min") for n in SMALLER), *((n, "max") for n in LARGER), *((n, None) for n in UNKNOWN)]
)
def test_direction_by_name(name: str, mode: str | None) -> None:
    assert usual_mode(name) == mode


@pytest.mark.parametrize(
    ("metric", "mode", "remedy"),
    [("val_mse", "max", "smaller"), ("val_acc", "min", "larger"), ("val_mse", "min", ""), ("val_acc", "max", "")],
)
def test_search_warns_once(caplog: pytest.LogCaptureFixture, metric: str, mode: str, remedy: str) -> None:
    with caplog.at_level(logging.WARNING):
        SupernetEvolution(metric=metric, mode=mode)
    told = [record.getMessage() for record in caplog.records if "`mode`" in record.getMessage()]
    assert len(told) == bool(remedy)
    assert all(
        f"SupernetEvolution is '{mode}' with `metric='{metric}'`" in text and remedy in text for text in told
    )


def test_ranking_warns_once_a_run(caplog: pytest.LogCaptureFixture, tmp_path) -> None:
    samples = [{"op": "skip", "width": 4}, {"op": "conv", "width": 8}]
    ranking = RankingConsistency(samples, [0.1, 0.2], metric="val_loss", recalibrate_batches=0)
    with caplog.at_level(logging.WARNING):
        train(MethodCase("a", dict), {"callbacks": [ranking]}, tmp_path, epochs=1)
    assert sum("`mode` of RankingConsistency" in record.getMessage() for record in caplog.records) == 1
