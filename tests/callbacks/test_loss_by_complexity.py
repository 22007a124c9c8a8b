"""Loss by complexity in the host: against the losses of every draw, sorted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nni_supernet_ext.callbacks import LossByComplexity, TrainingHistory
from nni_supernet_ext.errors import CheckpointError, ConfigurationError
from nni_supernet_ext.paths import SandwichSampler
from nni_supernet_ext.plots import plot_loss_by_complexity
from nni_supernet_ext.testing import MethodCase
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.testing.training import train

CASE = MethodCase("case", dict)


def cost(sample: Any) -> float:
    return float(sample["width"] + {"skip": 0, "linear": 1, "conv": 2}[sample["op"]])


def test_means_of_every_draw_s_loss(tmp_path: Path) -> None:
    losses, every_draw = LossByComplexity(cost, n_ranges=3, n_prior=600), TrainingHistory()
    run = train(CASE, {"callbacks": [losses, every_draw], "paths": SandwichSampler()}, tmp_path, epochs=2)
    assert losses.edges == [6.0, 9.0]  # a third of the six subnets each: costs 4, 5 | 6, 8 | 9, 10
    rows = every_draw.rows()
    for epoch in range(2):
        of_epoch = [row for row in rows if row["iteration"] // 4 == epoch]
        for place, costs in enumerate(((4, 5), (6, 8), (9, 10))):
            found = [row["loss"] for row in of_epoch if cost(row["sample"]) in costs]
            assert losses.counts[epoch][place] == len(found)
            expected = np.mean(found) if found else np.nan
            assert losses.history[epoch][place] == pytest.approx(expected, nan_ok=True)
    logged = run.evaluator.trainer.callback_metrics
    assert float(logged["train_loss_range_2"]) == pytest.approx(losses.history[1][2])


def test_no_step_reads_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way from a tensor to a number is closed while the hook of a draw runs."""

    def closed(*args: Any) -> Any:
        raise AssertionError("a draw reads a tensor")

    losses = LossByComplexity("weights")
    hook = LossByComplexity.on_after_draw

    def guarded(self: Any, state: Any) -> None:
        with monkeypatch.context() as patch:
            for name in ("item", "tolist", "numpy", "__float__", "__int__", "__bool__", "cpu"):
                patch.setattr(torch.Tensor, name, closed)
            hook(self, state)

    monkeypatch.setattr(LossByComplexity, "on_after_draw", guarded)
    train(CASE, {"callbacks": [losses]}, tmp_path, epochs=1)
    assert sum(losses.counts[0]) == 4


def test_measures_and_few_different_subnets(tmp_path: Path) -> None:
    alike = LossByComplexity(lambda sample: 1.0)
    train(CASE, {"callbacks": [alike]}, tmp_path / "alike", epochs=1)
    assert (alike.edges, len(alike.history[0])) == ([], 1)
    flops = LossByComplexity("flops", n_ranges=2)
    train(CASE, {"callbacks": [flops]}, tmp_path / "flops", epochs=1)
    assert len(flops.edges) == 1


def test_history_goes_on_after_a_resume(tmp_path: Path) -> None:
    whole = LossByComplexity(n_ranges=2)
    train(CASE, {"callbacks": [whole]}, tmp_path / "whole", epochs=2)
    folder = {"checkpoint_dir": tmp_path / "checkpoint"}
    half = [LossByComplexity(n_ranges=2), StopAfter(1)]
    train(CASE, {"callbacks": half, **folder}, tmp_path / "half", epochs=2)
    resumed = LossByComplexity(n_ranges=2)
    train(CASE, {"callbacks": [resumed], **folder}, tmp_path / "rest", epochs=2)
    np.testing.assert_array_equal(resumed.history, whole.history)
    assert resumed.counts == whole.counts


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"complexity": "size"}, "`complexity` is expected to be one of .* but got 'size'"),
        ({"n_ranges": 0}, "`n_ranges` is expected to be a positive integer, but got 0"),
        ({"n_prior": 1.5}, r"`n_prior` is expected to be a positive integer, but got 1\.5"),
    ],
)
def test_refusals(tmp_path: Path, settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        train(CASE, {"callbacks": [LossByComplexity(**settings)]}, tmp_path, epochs=1)


def test_the_figure_draws_a_line_for_each_range() -> None:
    figure = plot_loss_by_complexity([[2.0, 1.5, 1.0], [1.8, np.nan, 0.5]], [10_000, 2_000_000], title="losses")
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["below 10k", "10k to 2M", "from 2M"]
    assert [list(line.get_xdata()) for line in lines] == [[1, 2]] * 3
    np.testing.assert_array_equal(lines[1].get_ydata(), [1.5, np.nan])
    assert [line.get_label() for line in plot_loss_by_complexity([[1.0]], []).axes[0].lines] == ["all"]
    with pytest.raises(ConfigurationError, match=r"shape \(epochs, 2\) for 1 edges, but got \(1, 3\)"):
        plot_loss_by_complexity([[1.0, 2.0, 3.0]], [5.0])


def test_a_checkpoint_with_other_ranges_is_refused(tmp_path: Path) -> None:
    folder = {"checkpoint_dir": tmp_path / "checkpoint"}
    train(CASE, {"callbacks": [LossByComplexity(cost, n_ranges=2)], **folder}, tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match="Use the saved `n_ranges`"):
        train(CASE, {"callbacks": [LossByComplexity(cost, n_ranges=3)], **folder}, tmp_path, epochs=2)
