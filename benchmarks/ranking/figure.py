"""Draw every seed's Kendall's tau by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from nni_supernet_ext.plots.style import BLUE, GREY, new_figure, tidy


def plot_taus(taus: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Draw each method's runs as points and their mean as a bar, the best mean on top.

    Args:
        taus: Method -> Kendall's tau of each seed.
        title: Title of the figure.

    Returns:
        The figure.
    """
    names = sorted(taus, key=lambda name: float(np.mean(taus[name])))
    figure = new_figure(7.2, 1.4 + 0.27 * len(names))
    axes = figure.subplots()
    for row, name in enumerate(names):
        values = np.asarray(taus[name], dtype=float)
        axes.scatter(values, np.full(len(values), row), s=16, color=BLUE, alpha=0.6, linewidths=0)
        axes.plot([values.mean()] * 2, [row - 0.32, row + 0.32], color=BLUE, linewidth=2)
    for baseline in ("params", "flops"):
        if baseline in taus:
            axes.axvline(float(np.mean(taus[baseline])), color=GREY, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("Kendall's tau with the accuracy of networks trained alone")
    tidy(axes, title)
    return figure
