"""What the distribution figures show: shares, quartiles, worst and best, read back from the artists."""

from __future__ import annotations

import numpy as np
import pytest

from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.plots import plot_accuracy_boxes, plot_costs


def test_costs_are_shares_of_each_sampler_s_draws():
    figure = plot_costs({"a": [0.0, 0.0, 0.0, 10.0], "b": [10.0, 10.0]}, n_bins=2)
    steps = [patch.get_data().values for patch in figure.axes[0].patches]
    assert [list(s) for s in steps] == [[75.0, 25.0], [0.0, 100.0]]


def test_boxes_are_quartiles_and_whiskers_the_extremes():
    accuracy = [0.1, 0.2, 0.3, 0.4, 0.9]
    costs = [1.0, 1.1, 1.2, 1.3, 1.4]
    figure = plot_accuracy_boxes({"m": [*costs, 5.0]}, {"m": [*accuracy, 0.95]}, n_ranges=2)
    axes = figure.axes[0]
    box = axes.patches[0].get_path().vertices
    assert (box[:, 1].min(), box[:, 1].max()) == pytest.approx((20.0, 40.0))
    whiskers = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 2]
    lowest = min(np.min(y) for y in whiskers)
    in_first = [
        y
        for line, y in zip(axes.lines, [line.get_ydata() for line in axes.lines], strict=True)
        if len(y) == 2 and np.max(line.get_xdata()) < 0.5
    ]
    assert lowest == pytest.approx(10.0) and max(np.max(y) for y in in_first) == pytest.approx(90.0)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1 to 3", "3 to 5"]


def test_bounds_of_ranges_are_short_enough_to_stand_side_by_side():
    figure = plot_accuracy_boxes({"m": [910_880, 11_405_696]}, {"m": [0.5, 0.6]}, n_ranges=2)
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["911k to 6.16M", "6.16M to 11.4M"]


def test_wrong_numbers_are_refused():
    with pytest.raises(ConfigurationError, match=r"as many numbers as `costs`.*\{'m': 1\} for \{'m': 2\}"):
        plot_accuracy_boxes({"m": [1.0, 2.0]}, {"m": [0.5]})
    with pytest.raises(ConfigurationError, match=r"`costs` is expected to hold numbers.*\['m'\]"):
        plot_costs({"m": []})
    with pytest.raises(ConfigurationError, match="none for any"):
        plot_costs({})
    with pytest.raises(DataError, match="`accuracies` is expected to be free of NaN, but got 1 NaN among 2"):
        plot_accuracy_boxes({"m": [1.0, 2.0]}, {"m": [0.5, float("nan")]})
    with pytest.raises(DataError, match="`costs` is expected to be free of NaN"):
        plot_accuracy_boxes({"m": [1.0, float("nan")]}, {"m": [0.5, 0.6]})


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), None])
def test_costs_that_no_axis_has_are_refused(wrong):
    """None is the FLOPs of a search that counted none."""
    with pytest.raises(DataError, match=r"`costs` is expected to be (free of NaN|finite), but got 1 "):
        plot_costs({"m": [1.0, wrong]})
    with pytest.raises(DataError, match=r"`costs` is expected to be (free of NaN|finite), but got 1 "):
        plot_accuracy_boxes({"m": [1.0, wrong]}, {"m": [0.5, 0.6]})


@pytest.mark.parametrize("wrong", [0, 2.5, True])
def test_numbers_of_ranges_are_whole(wrong):
    with pytest.raises(ConfigurationError, match="`n_bins`"):
        plot_costs({"m": [1.0, 2.0]}, n_bins=wrong)
    with pytest.raises(ConfigurationError, match="`n_ranges`"):
        plot_accuracy_boxes({"m": [1.0, 2.0]}, {"m": [0.5, 0.6]}, n_ranges=wrong)
