"""Accuracy against cost of evaluated subnets, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nni_supernet_ext.functional._vectors import as_pair
from nni_supernet_ext.functional.evolution import pareto_front
from nni_supernet_ext.plots.style import ACCENTS, BLUE, GREY, label_axes, new_figure, thousands, tidy

_MARKERS = "*sDP"


def plot_accuracy(
    costs: Sequence[float],
    accuracies: Sequence[float],
    *,
    marked: Mapping[str, tuple[float, float]] | None = None,
    cost_name: str = "parameters",
    accuracy_name: str = "validation accuracy",
    title: str | None = None,
) -> Figure:
    """Draw subnets as points, the Pareto front as a line, and chosen subnets with a name.

    Subnets far below the others (by three interquartile ranges) are drawn as triangles at the lower edge, so
    that they do not squeeze the rest.

    Args:
        costs: Cost of each subnet, for example its number of parameters, shape ``(n,)``.
        accuracies: Accuracy of each subnet in the same order, 0 to 1.
        marked: Name -> (cost, accuracy) of subnets to point out.
        cost_name: Name of the horizontal axis.
        accuracy_name: Name of the vertical axis.
        title: Title of the figure.

    Returns:
        The figure; save it with ``figure.savefig(path)``.

    Raises:
        ConfigurationError: The two lengths differ.
        DataError: A number is NaN.

    Example:
        >>> figure = plot_accuracy([1e4, 2e4, 3e4], [0.8, 0.9, 0.85], marked={'winner': (2e4, 0.9)})
        >>> figure.axes[0].get_xlabel()
        'parameters'
    """
    x, values = as_pair(("costs", "accuracies"), costs, accuracies, at_least=0)
    front, y = pareto_front(x, values), 100 * values
    floor = _floor(y, [100 * value for _, value in (marked or {}).values()])
    figure = new_figure(7.2, 4.4)
    axes = figure.subplots()
    inside = y >= floor
    axes.scatter(x[inside], y[inside], s=18, color=GREY, alpha=0.55, linewidths=0, label="evaluated subnets")
    if not inside.all():
        below = int((~inside).sum())
        axes.scatter(
            x[~inside], np.full(below, floor), s=16, marker="v", color=GREY, alpha=0.35, label=f"{below} lie below"
        )
    shown = [index for index in front if inside[index]]
    line: dict[str, Any] = {"color": BLUE, "linewidth": 1.6, "marker": "o", "markersize": 4}
    axes.step(x[shown], y[shown], where="post", label="Pareto front", **line)
    for number, (name, (cost, accuracy)) in enumerate((marked or {}).items()):
        axes.scatter(
            [cost],
            [100 * accuracy],
            s=190 if number == 0 else 90,
            marker=_MARKERS[number % len(_MARKERS)],
            color=ACCENTS[number % len(ACCENTS)],
            edgecolors="white",
            linewidths=1.0,
            zorder=5,
            label=name,
        )
    tidy(axes, title)
    label_axes(axes, cost_name, f"{accuracy_name} (%)")
    thousands(axes.xaxis)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def _floor(y: np.ndarray, always: list[float]) -> float:
    """Return the lowest accuracy to show: a few broken subnets must not squeeze all others."""
    if not y.size:
        return 0.0
    low, high = np.percentile(y, [25, 75])
    return float(min([max(low - 3 * (high - low), y.min()), *always]))
