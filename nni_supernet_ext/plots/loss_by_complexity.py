"""Training loss by range of complexity."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.plots.style import label_axes, new_figure, tidy


def plot_loss_by_complexity(
    history: Sequence[Sequence[float]],
    edges: Sequence[float],
    *,
    complexity_name: str = "parameters",
    title: str | None = None,
) -> Figure:
    """Draw the mean training loss of each epoch, one line for each range of complexity.

    Args:
        history: For each epoch the mean loss of each range, shape ``(epochs, ranges)``, as
            ``LossByComplexity.history``; NaN leaves a gap.
        edges: Complexities between the ranges, shape ``(ranges - 1,)``.
        complexity_name: What the complexity is, for the legend.
        title: Title of the figure.

    Returns:
        The figure; save it with ``figure.savefig(path)``.

    Raises:
        ConfigurationError: The shapes do not fit.

    Example:
        >>> figure = plot_loss_by_complexity([[2.3, 2.2], [2.0, 1.7]], [20_000])
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['below 20k', 'from 20k']
    """
    losses = np.asarray(history, dtype=float)
    if losses.ndim != 2 or losses.shape[1] != len(edges) + 1:
        raise ConfigurationError(
            f"Argument `history` is expected to have the shape (epochs, {len(edges) + 1}) for {len(edges)} edges, "
            f"but got {losses.shape}. Give `history` and `edges` of the same training."
        )
    figure = new_figure(7.2, 4.0)
    axes = figure.subplots()
    epochs = np.arange(1, len(losses) + 1)
    for number, (column, label) in enumerate(zip(losses.T, _labels(edges), strict=True)):
        color = colormaps["viridis"](0.9 * number / max(len(edges), 1))
        axes.plot(epochs, column, color=color, marker="o", markersize=3, linewidth=1.6, label=label)
    tidy(axes, title)
    label_axes(axes, "epoch", "mean training loss")
    axes.legend(frameon=False, fontsize=9, title=complexity_name)
    return figure


def _labels(edges: Sequence[float]) -> list[str]:
    if not len(edges):
        return ["all"]
    write = EngFormatter(sep="", places=None)
    names = [write(edge) for edge in edges]
    between = [f"{low} to {high}" for low, high in pairwise(names)]
    return [f"below {names[0]}", *between, f"from {names[-1]}"]
