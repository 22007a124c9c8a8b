"""Ranking consistency in the host: what is predicted, when it is measured, who hears of it, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nni.nas.evaluator.pytorch import DataLoader
from pytorch_lightning.callbacks import EarlyStopping
from scipy import stats
from torch.utils.data import Dataset

from nni_supernet_ext import functional
from nni_supernet_ext.benchmarks import BenchmarkOracle, TableFormat
from nni_supernet_ext.callbacks import RankingConsistency
from nni_supernet_ext.core import SupernetCallback
from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.recording.epochs import EpochReports
from nni_supernet_ext.testing import MethodCase, toy_data, toy_evaluator
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.testing.training import train

CASE = MethodCase("case", dict)
SAMPLES = [{"op": op, "width": width} for op in ("conv", "linear", "skip") for width in (4, 8)]
TRUTHS = [60.0, 90.0, 80.0, 70.0, 50.0, 65.0]


def run(tmp_path: Path, ranking: RankingConsistency, *others: Any, epochs: int = 1, **evaluator: Any) -> Any:
    return train(CASE, {"callbacks": [ranking, *others]}, tmp_path, epochs=epochs, evaluator_arguments=evaluator)


def accuracy(network: torch.nn.Module, loader: Any) -> float:
    """Count right answers, one batch at a time, of a network of its own."""
    network.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in loader:
            right += int((network(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


def test_predicts_what_the_extracted_subnets_score(tmp_path: Path) -> None:
    ranking = RankingConsistency(SAMPLES, TRUTHS, recalibrate_batches=0)
    finished = run(tmp_path, ranking, epochs=2)
    supernet, loader = finished.strategy.trained, finished.evaluator.val_dataloaders
    scores = [accuracy(supernet.extract(sample), loader) for sample in SAMPLES]
    assert ranking.predicted is not None
    assert ranking.predicted.tolist() == pytest.approx(scores)
    tau = stats.kendalltau(scores, TRUTHS).statistic
    assert ranking.history[-1] == {"epoch": 1, "kendall_tau": pytest.approx(tau)}
    assert float(finished.evaluator.trainer.callback_metrics["ranking_kendall_tau"]) == pytest.approx(tau)


def test_recalibration_gives_each_subnet_statistics_of_its_own(tmp_path: Path) -> None:
    ranking = RankingConsistency(SAMPLES, TRUTHS, recalibrate_batches=4, metric="val_loss", mode="min")
    finished = run(tmp_path, ranking)
    supernet, evaluator = finished.strategy.trained, finished.evaluator
    images = torch.cat([batch for batch, _ in evaluator.train_dataloaders])  # all 64: four batches of 16
    for index, sample in enumerate(SAMPLES):
        network = supernet.extract(sample)
        with torch.no_grad():
            features = network.stem(images)
            network.norm.running_mean.copy_(features.mean((0, 2, 3)))
            losses = [
                torch.nn.functional.cross_entropy(network.eval()(x), y, reduction="sum")
                for x, y in evaluator.val_dataloaders
            ]
        # Only the mean is put in by hand: variances are averaged over batches, close to that of all images.
        assert ranking.predicted is not None
        assert -ranking.predicted[index] == pytest.approx(float(sum(losses)) / 32, rel=0.2)
    plain = RankingConsistency(SAMPLES, TRUTHS, recalibrate_batches=0, metric="val_loss", mode="min")
    run(tmp_path / "plain", plain)
    assert plain.predicted is not None
    assert (plain.predicted != ranking.predicted).all()


def test_measures_every_few_epochs_and_at_the_end(tmp_path: Path) -> None:
    ranking = RankingConsistency(SAMPLES, TRUTHS, every=2, limit_batches=1)
    run(tmp_path, ranking, epochs=3)
    assert [entry["epoch"] for entry in ranking.history] == [1, 2]
    by_steps = RankingConsistency(SAMPLES, TRUTHS, every=10, limit_batches=1)
    run(tmp_path / "steps", by_steps, epochs=9, max_steps=8)
    assert [entry["epoch"] for entry in by_steps.history] == [1]
    stopped = RankingConsistency(SAMPLES, TRUTHS, every=10, limit_batches=1)
    run(tmp_path / "stopped", stopped, EarlyStopping("val_loss", stopping_threshold=1e9), epochs=9)
    assert [entry["epoch"] for entry in stopped.history] == [0]


def test_the_epoch_s_intermediate_result_holds_the_value(tmp_path: Path) -> None:
    for name, trainer in (("with", {}), ("without", {"limit_val_batches": 0})):
        heard: dict[int, dict[str, float]] = {}
        loader = toy_evaluator().val_dataloaders
        ranking = RankingConsistency(SAMPLES, TRUTHS, loader=loader)
        run(tmp_path / name, ranking, EpochReports(heard.__setitem__), epochs=2, **trainer)
        assert [heard[e]["ranking_kendall_tau"] for e in (0, 1)] == pytest.approx(
            [entry["kendall_tau"] for entry in ranking.history]
        ), name


def test_several_metrics_by_name(tmp_path: Path) -> None:
    metrics = {
        "kendall_tau": functional.kendall_tau,
        "spearman": functional.spearman_rho,
        "top3": partial(functional.precision_at_top, fraction=0.5),
    }
    ranking = RankingConsistency(SAMPLES, TRUTHS, metrics=metrics)
    finished = run(tmp_path, ranking)
    rho = stats.spearmanr(ranking.predicted, TRUTHS).statistic
    assert ranking.history[0]["spearman"] == pytest.approx(rho)
    assert set(finished.evaluator.trainer.callback_metrics) >= {f"ranking_{name}" for name in metrics}


def test_history_goes_on_after_a_resume(tmp_path: Path) -> None:
    whole = RankingConsistency(SAMPLES, TRUTHS)
    train(CASE, {"callbacks": [whole]}, tmp_path / "whole", epochs=2)
    folder = {"checkpoint_dir": tmp_path / "checkpoint"}
    first = RankingConsistency(SAMPLES, TRUTHS)
    train(CASE, {"callbacks": [first, StopAfter(1)], **folder}, tmp_path / "half", epochs=2)
    resumed = RankingConsistency(SAMPLES, TRUTHS)
    train(CASE, {"callbacks": [resumed], **folder}, tmp_path / "rest", epochs=2)
    assert resumed.history == whole.history
    assert [entry["epoch"] for entry in whole.history] == [0, 1]


def test_modes_and_the_active_subnet_are_left_alone(tmp_path: Path) -> None:
    class Frozen(SupernetCallback):
        """Keep a layer in evaluation mode, and see what the next epoch finds."""

        def __init__(self) -> None:
            self.modes: list[bool] = []

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.layer = pl_module.plan.supernet.model.norm
            self.layer.eval()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.modes.append(self.layer.training)
            self.active = pl_module.plan.supernet.active
            self.drawn = pl_module.state.draws[-1].sample

    frozen = Frozen()
    ranking = RankingConsistency(SAMPLES, TRUTHS, loader=toy_evaluator().val_dataloaders)
    # Ranked first: the callback that looks comes after it.
    run(tmp_path, ranking, frozen, epochs=2, limit_val_batches=0)
    assert frozen.modes == [False, False]
    assert frozen.active == frozen.drawn


def test_a_diverged_supernet_ranks_nothing(tmp_path: Path) -> None:
    ranking = RankingConsistency(SAMPLES, TRUTHS)
    ranking._read = lambda metrics: float("nan")  # type: ignore[method-assign]
    run(tmp_path, ranking)
    assert np.isnan(ranking.history[0]["kendall_tau"])


def test_an_infinite_loss_has_an_order_and_no_linear_correlation(tmp_path: Path) -> None:
    metrics = {
        "tau": functional.kendall_tau,
        "pearson": functional.pearson_r,
        "strict": lambda predicted, actual: np.asarray_chkfinite(predicted)[0],
    }
    ranking = RankingConsistency(SAMPLES, TRUTHS, metrics=metrics)
    losses = iter([3.0, float("inf"), 1.0, 2.0, 5.0, 4.0])
    ranking._read = lambda metrics: -next(losses)  # type: ignore[method-assign]
    run(tmp_path, ranking)
    tau = stats.kendalltau([-3, -9, -1, -2, -5, -4], TRUTHS).statistic
    [measured] = ranking.history
    assert measured["tau"] == pytest.approx(tau)
    assert np.isnan(measured["pearson"]) and np.isnan(measured["strict"])


class Ops(BenchmarkOracle):
    format = TableFormat("Ops", "ops", ("first", "second"), ("skip", "conv"))

    def accuracy(self, architecture: Any, doubled: bool = False) -> float:
        return super().accuracy(architecture) * (2 if doubled else 1)


def test_from_an_oracle() -> None:
    oracle = Ops.from_columns(
        {"arch": ["00", "01", "10", "11"], "canonical": [0, 1, 1, 3], "accuracy": [10.0, 20.0, 20.0, 30.0]}
    )
    ranking = RankingConsistency.from_oracle(oracle, n=3, measurement={"doubled": True}, every=4)
    assert ranking.truths.tolist() == [20.0, 40.0, 60.0]
    assert ranking.samples == [oracle.sample(row) for row in (0, 1, 3)]
    assert ranking.every == 4
    chosen = {tuple(RankingConsistency.from_oracle(oracle, n=2, seed=seed).truths) for seed in range(20)}
    assert len(chosen) == 3
    again = [RankingConsistency.from_oracle(oracle, n=2, seed=5).truths.tolist() for _ in range(2)]
    assert again[0] == again[1]
    with pytest.raises(ConfigurationError, match=r"`n` is expected to be at most 3, .*but got 4"):
        RankingConsistency.from_oracle(oracle, n=4)
    for wrong in (1, 2.0, True):
        with pytest.raises(ConfigurationError, match=f"an integer of at least 2, but got {wrong}"):
            RankingConsistency.from_oracle(oracle, n=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("samples", "truths", "settings", "match"),
    [
        (SAMPLES, TRUTHS[:4], {}, r"`truths` .* one number for each of 6 samples, but got the shape \(4,\)"),
        (SAMPLES[:1], TRUTHS[:1], {}, "`samples` is expected to hold at least 2 architectures, but got 1"),
        (SAMPLES, [*TRUTHS[:5], np.nan], {}, "`truths` .* free of NaN, but got 1 of 6, the first at 5"),
        ([*SAMPLES[:5], {"op": "pool", "width": 4}], TRUTHS, {}, r"`samples` .* 1 others of 6.*samples\[5\].*pool"),
        ([{"op": "conv"}, *SAMPLES[:5]], TRUTHS, {}, r"`samples` .* 1 others of 6.*samples\[0\].*width"),
        (SAMPLES, TRUTHS, {"every": 0}, "`every` is expected to be a positive integer, but got 0"),
        (SAMPLES, TRUTHS, {"recalibrate_batches": -1}, "`recalibrate_batches` .* at least 0, but got -1"),
        (SAMPLES, TRUTHS, {"limit_batches": 0}, "`limit_batches` .* positive integer or None, but got 0"),
        (SAMPLES, TRUTHS, {"mode": "up"}, "`mode` is expected to be one of .* but got 'up'"),
        (SAMPLES, TRUTHS, {"metrics": {"best": functional.best_of_top}}, "'best' raised: .*functools.partial"),
        (
            SAMPLES,
            TRUTHS,
            {"metrics": {"top": functional.kendall_tau_top}},
            "'top' raised: Argument `fraction` .* at least 2 of 6 subnets",
        ),
    ],
)
def test_refusals(tmp_path: Path, samples: Any, truths: Any, settings: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        run(tmp_path, RankingConsistency(samples, truths, **settings))


def test_unknown_metric_and_no_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"`metric` .* one of \['val_acc', 'val_loss'\].*got 'val_f1'"):
        run(tmp_path, RankingConsistency(SAMPLES, TRUTHS, metric="val_f1"))
    with pytest.raises(DataError, match="at least one batch, but got an empty loader"):
        run(tmp_path / "empty", RankingConsistency(SAMPLES, TRUTHS, loader=[]))


class OwnOrder:
    """Shuffle batches with a generator of its own."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.rng.permutation(64).reshape(4, 16).tolist())

    def __len__(self) -> int:
        return 4


class OwnNoise(Dataset[Any]):
    """Add noise from a generator of its own."""

    def __init__(self) -> None:
        self.data, self.rng = toy_data(64), np.random.RandomState(2)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        images, label = self.data[index]
        return images + 0.1 * self.rng.normal(), label


def own_generators(*args: Any, **kwargs: Any) -> Any:
    evaluator = toy_evaluator(*args, **kwargs)
    evaluator.train_dataloaders = DataLoader(OwnNoise(), batch_sampler=OwnOrder())
    return evaluator


def test_loaders_with_generators_of_their_own_train_as_without(tmp_path: Path) -> None:
    case = MethodCase("case", dict, evaluator=own_generators)
    weights = []
    for name, callbacks in (
        ("without", []),
        ("with", [RankingConsistency(SAMPLES, TRUTHS, recalibrate_batches=2)]),
    ):
        settings = {"callbacks": callbacks, "recalibrate_batches": 0}
        weights.append(train(case, settings, tmp_path / name, epochs=2).weights)
    assert [key for key in weights[0] if not torch.equal(weights[0][key], weights[1][key])] == []
