"""Loss and learning rate over a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.plots.style import BLUE, GREY, label_axes, new_figure, thousands, tidy


def plot_training(
    iterations: Sequence[float],
    losses: Sequence[float],
    rates: Sequence[float],
    *,
    complexities: Sequence[float] | None = None,
    complexity_name: str = "parameters",
    title: str | None = None,
) -> Figure:
    """Draw the loss of every step with its running mean, and below it the learning rate of every step.

    With ``complexities`` the rates are points coloured by the subnet's complexity, which shows how far a
    complexity-aware learning rate spreads them; otherwise they are a line.

    Args:
        iterations: Iteration of each row, shape ``(n,)``, as from ``TrainingHistory.arrays()``.
        losses: Loss of each row.
        rates: Learning rate of each row; NaN is left out.
        complexities: Complexity of each row's subnet.
        complexity_name: Name of the colour scale.
        title: Title of the figure.

    Returns:
        The figure; save it with ``figure.savefig(path)``.

    Raises:
        ConfigurationError: The lengths differ.

    Example:
        >>> figure = plot_training([0, 1, 2], [2.3, 2.1, 1.8], [0.1, 0.05, 0.0])
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['training loss', 'learning rate']
    """
    _check_lengths(iterations=iterations, losses=losses, rates=rates, complexities=complexities)
    x, loss, rate = (np.asarray(values, dtype=float) for values in (iterations, losses, rates))
    figure = new_figure(7.2, 5.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    _draw_loss(upper, x, loss)
    if complexities is None:
        lower.plot(x, rate, color=BLUE, linewidth=1.6)
    else:
        _draw_spread(figure, lower, x, rate, np.asarray(complexities, dtype=float), complexity_name)
    tidy(upper, title)
    tidy(lower)
    label_axes(upper, "", "training loss")
    label_axes(lower, "iteration", "learning rate")
    thousands(lower.xaxis)
    lower.set_ylim(bottom=0)
    return figure


def _draw_loss(axes: Axes, x: np.ndarray, loss: np.ndarray) -> None:
    axes.plot(x, loss, ".", color=GREY, alpha=0.25, markersize=3, label="each step")
    if len(x) < 2:
        return
    window = max(2, len(loss) // 30)
    means = np.convolve(loss, np.full(window, 1 / window), mode="valid")
    # Each mean stands at the end of its window: it knows no later loss.
    axes.plot(x[window - 1 :], means, color=BLUE, linewidth=1.8, label=f"mean of {window} steps")
    axes.legend(frameon=False, fontsize=9)


def _draw_spread(
    figure: Figure, axes: Axes, x: np.ndarray, rate: np.ndarray, complexity: np.ndarray, name: str
) -> None:
    points = axes.scatter(x, rate, c=complexity, cmap="viridis", s=7, alpha=0.85, linewidths=0)
    bar = figure.colorbar(points, ax=axes, pad=0.01, format=EngFormatter(sep=""))
    bar.set_label(f"{name} of the step's subnet", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def _check_lengths(**columns: Sequence[float] | None) -> None:
    lengths = {name: len(values) for name, values in columns.items() if values is not None}
    if len(set(lengths.values())) > 1:
        raise ConfigurationError(
            f"Arguments are expected to have the same length, but got {lengths}. Give one number per row."
        )
