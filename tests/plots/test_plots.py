"""The figures: what is drawn, and that nothing global is touched."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from nni_supernet_ext.errors import ConfigurationError, DataError, SpaceError
from nni_supernet_ext.plots import plot_accuracy, plot_cell, plot_training

CELL = {
    "cell/0_1": "conv_3x3",
    "cell/0_2": "none",
    "cell/1_2": "skip_connect",
    "cell/0_3": "conv_1x1",
    "cell/1_3": "avg_pool_3x3",
    "cell/2_3": "none",
}


def test_pareto_front_is_drawn_through_the_right_points() -> None:
    figure = plot_accuracy([30, 10, 20, 25], [0.9, 0.5, 0.8, 0.7])
    (front,) = figure.axes[0].lines
    assert front.get_xdata().tolist() == [10, 20, 30]
    assert front.get_ydata().tolist() == pytest.approx([50, 80, 90])


def test_marked_subnets_stand_in_the_legend_and_in_view() -> None:
    figure = plot_accuracy([10, 20], [0.8, 0.9], marked={"winner": (20, 0.9), "random": (15, 0.2)})
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names[-2:] == ["winner", "random"]
    assert figure.axes[0].get_ylim()[0] < 20


def test_broken_subnets_do_not_squeeze_the_others() -> None:
    accuracies = [0.1, 0.1, *np.linspace(0.9, 0.99, 98)]
    figure = plot_accuracy(range(100), accuracies)
    assert figure.axes[0].get_ylim()[0] > 70
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "2 lie below" in names


def test_nan_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="`accuracies` is expected to be free of NaN"):
        plot_accuracy([1, 2], [0.5, float("nan")])
    with pytest.raises(ConfigurationError, match="same length"):
        plot_accuracy([1, 2], [0.5])
    with pytest.raises(ConfigurationError, match=r"same length, but got .*'losses': 1"):
        plot_training([0, 1], [2.0], [0.1, 0.1])


def test_running_mean_uses_no_later_loss() -> None:
    losses = np.zeros(60)
    losses[40] = 1.0
    upper = plot_training(range(60), losses, np.ones(60)).axes[0]
    mean = upper.lines[1]
    x, y = mean.get_xdata(), mean.get_ydata()
    assert y[x < 40].max() == pytest.approx(0.0)
    assert y[x == 40] == pytest.approx(0.5)  # a sixtieth of the run is below the smallest window, two steps


def test_rates_are_points_coloured_by_complexity_or_a_line() -> None:
    line = plot_training([0, 1, 2], [3, 2, 1], [0.3, 0.2, 0.1]).axes[1]
    assert line.lines[0].get_ydata().tolist() == [0.3, 0.2, 0.1]
    spread = plot_training([0, 1, 2], [3, 2, 1], [0.3, 0.2, 0.1], complexities=[5, 7, 6]).axes[1]
    (points,) = spread.collections
    assert points.get_array().tolist() == [5, 7, 6]
    assert points.get_offsets()[:, 1].tolist() == [0.3, 0.2, 0.1]


def test_single_step_is_drawn() -> None:
    assert len(plot_training([0], [2.0], [0.1]).axes) == 2


def test_cell_shows_every_edge_and_tells_dead_ones() -> None:
    axes = plot_cell(CELL).axes[0]
    styles = [patch.get_linestyle() for patch in axes.patches]
    # In the order of CELL: 1 to 2 is dead because nothing leaves 2.
    assert styles == ["-", ":", "--", "-", "-", ":"]
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("none") == 2
    assert {"input", "1", "2", "output", "3x3 conv", "skip", "1x1 conv", "3x3 avg pool"} <= set(texts)


def test_edge_behind_an_unreachable_node_is_dead() -> None:
    axes = plot_cell({"0_1": "none", "1_2": "conv_3x3", "0_2": "skip_connect"}).axes[0]
    assert [patch.get_linestyle() for patch in axes.patches] == [":", "--", "-"]


def test_operations_need_no_names() -> None:
    """Those of a list are numbers, and a choice of inputs is a list."""
    figure = plot_cell({"cell/0_1": 2, "cell/1_2": [0, 1]})
    assert {"2", "[0, 1]"} <= {text.get_text() for text in figure.axes[0].texts}


def test_labels_that_name_no_edge_are_refused() -> None:
    with pytest.raises(SpaceError, match="got 'op'"):
        plot_cell({"op": "conv"})
    with pytest.raises(SpaceError, match="got '2_1'"):
        plot_cell({"2_1": "conv"})


def test_cells_are_drawn_one_at_a_time() -> None:
    with pytest.raises(SpaceError, match="one cell once, but got 'normal/0_1' and 'reduce/0_1'"):
        plot_cell({"normal/0_1": "skip_connect", "reduce/0_1": "none"})
    with pytest.raises(SpaceError, match="at least one edge, but got none"):
        plot_cell({})


def test_figures_can_be_saved_and_pyplot_stays_out(tmp_path: Path) -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    for number, figure in enumerate(
        (plot_accuracy([1, 2], [0.1, 0.2]), plot_training([0], [1], [1]), plot_cell(CELL))
    ):
        path = tmp_path / f"{number}.png"
        figure.savefig(path)
        assert path.read_bytes().startswith(b"\x89PNG")
    assert ("matplotlib.pyplot" in sys.modules) == loaded
