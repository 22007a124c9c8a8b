"""What a callback measures of an epoch is heard of in that epoch: by loggers, trials and recorded experiments."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.experiment import NasExperiment
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from nni_supernet_ext._compat.nni_database import stored_trials
from nni_supernet_ext.callbacks import GradientVariance, LossByComplexity, PathTrainability, RankingConsistency
from nni_supernet_ext.paths import SandwichSampler
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import ToySpace, toy_evaluator
from nni_supernet_ext.trial import Trial

EPOCHS = 3
SAMPLES = [{"op": op, "width": width} for op in ("conv", "linear", "skip") for width in (4, 8)]
TRUTHS = [60.0, 90.0, 80.0, 70.0, 50.0, 65.0]


class Remembered(Logger):
    """Keep every value with the number of the optimizer step."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    name = "remembered"
    version = 0

    @rank_zero_only
    def log_hyperparams(self, *arguments: Any, **settings: Any) -> None:
        pass

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append(dict(metrics))

    def values(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if name in row]


class Measured:
    """The callbacks, and by name what each of them measured, epoch by epoch."""

    def __init__(self) -> None:
        self.variance, self.losses = GradientVariance(), LossByComplexity(n_ranges=2)
        self.paths = PathTrainability(n_paths=2, n_examples=4)
        loader = toy_evaluator().val_dataloaders
        settings = {"loader": loader, "metric": "val_loss", "mode": "min", "recalibrate_batches": 1}
        self.ranking = RankingConsistency(SAMPLES, TRUTHS, **settings)
        self.callbacks = [self.variance, self.losses, self.paths, self.ranking]

    def check(self, heard: Callable[[str], list[float]]) -> None:
        """Compare with what was heard of each epoch."""
        expected = {
            "gradient_variance": self.variance.history,
            "train_loss_range_0": [means[0] for means in self.losses.history],
            "train_loss_range_1": [means[1] for means in self.losses.history],
            "trainability_trace": [math.fsum(v.trace for v in epoch) / 2 for epoch in self.paths.history],
            "ranking_kendall_tau": [entry["kendall_tau"] for entry in self.ranking.history],
        }
        for name, values in expected.items():
            assert len(values) == EPOCHS and len({*values}) > 1, name
            assert heard(name) == pytest.approx(values), name


def run(measured: Measured, tmp_path: Path, **trainer: Any) -> NasExperiment:
    # The smallest and the largest subnet in each step: neither range is ever without a draw.
    strategy = SupernetStrategy(paths=SandwichSampler(), callbacks=measured.callbacks)
    made = NasExperiment(ToySpace(), toy_evaluator(EPOCHS, root=tmp_path, **trainer), strategy)
    made.config.experiment_working_directory = str(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            made.run()
        finally:
            made.stop()
    return made


VALIDATION = pytest.mark.parametrize("trainer", [{}, {"limit_val_batches": 0}], ids=["validated", "not validated"])


@VALIDATION
def test_loggers_and_the_recorded_experiment(tmp_path: Path, trainer: dict[str, Any]) -> None:
    measured, logger = Measured(), Remembered()
    made = run(measured, tmp_path, logger=logger, **trainer)
    measured.check(logger.values)
    (stored,) = stored_trials(tmp_path / made.id / "db" / "nni.sqlite")
    measured.check(lambda name: [stored.reported[epoch][name] for epoch in range(EPOCHS)])


@VALIDATION
def test_intermediate_results_of_a_trial(tmp_path: Path, trainer: dict[str, Any]) -> None:
    measured = Measured()
    with Trial(folder=tmp_path / "trial") as trial:
        run(measured, tmp_path, **trainer)
        reports = trial._reports.entries
    measured.check(lambda name: [reports[epoch][name] for epoch in range(EPOCHS)])
