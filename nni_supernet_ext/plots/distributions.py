"""How costs of drawn subnets are distributed, and accuracies within ranges of cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from nni_supernet_ext._integers import require_integers
from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.functional._vectors import FloatVector, as_vector
from nni_supernet_ext.plots.style import ACCENTS, INK, label_axes, new_figure, thousands, tidy


def plot_costs(
    costs: Mapping[str, Sequence[float]],
    *,
    cost_name: str = "FLOPs",
    n_bins: int = 30,
    title: str | None = None,
) -> Figure:
    """Draw the distribution of the costs of drawn subnets, one outline for each sampler.

    Args:
        costs: Sampler's name -> cost of each draw.
        cost_name: Name of the horizontal axis.
        n_bins: Number of equal bins over all costs. Default 30.
        title: Title of the figure.

    Returns:
        The figure; save it with ``figure.savefig(path)``.

    Raises:
        ConfigurationError: No costs at all, or ``n_bins`` is no whole number from 1.
        DataError: A cost is NaN or infinite.

    Example:
        >>> figure = plot_costs({'uniform': [1e6, 2e6, 2e6], 'best-up': [1e6, 1e6, 3e6]})
        >>> [line.get_label() for line in figure.axes[0].patches]
        ['uniform', 'best-up']
    """
    require_integers("Use for example 30.", n_bins=n_bins)
    _refuse_empty("costs", costs)
    spent = {name: _finite_vector("costs", values) for name, values in costs.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(spent.values())), n_bins)
    figure = new_figure(7.2, 3.6)
    axes = figure.subplots()
    for number, (name, values) in enumerate(spent.items()):
        shares = np.histogram(values, edges)[0] / len(values)
        color = ACCENTS[number % len(ACCENTS)]
        axes.stairs(100 * shares, edges, label=name, color=color, linewidth=1.6)
    tidy(axes, title)
    label_axes(axes, cost_name, "share of the draws (%)")
    thousands(axes.xaxis)
    axes.legend(frameon=False, fontsize=9)
    return figure


def plot_accuracy_boxes(
    costs: Mapping[str, Sequence[float]],
    accuracies: Mapping[str, Sequence[float]],
    *,
    n_ranges: int = 5,
    cost_name: str = "FLOPs",
    accuracy_name: str = "validation accuracy",
    title: str | None = None,
) -> Figure:
    """Draw a box for each method in each range of cost: quartiles, with whiskers from the worst to the best.

    Args:
        costs: Method's name -> cost of each evaluated subnet.
        accuracies: Method's name -> accuracy of each subnet in the same order, 0 to 1.
        n_ranges: Number of equal ranges of cost. Default 5.
        cost_name: Name of the horizontal axis.
        accuracy_name: Name of the vertical axis.
        title: Title of the figure.

    Returns:
        The figure; save it with ``figure.savefig(path)``.

    Raises:
        ConfigurationError: No costs, other methods among the accuracies, different lengths, or ``n_ranges`` is no
            whole number from 1.
        DataError: A number is NaN or infinite.

    Example:
        >>> figure = plot_accuracy_boxes({'KL': [1e6, 2e6]}, {'KL': [0.7, 0.8]}, n_ranges=2)
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['1M to 1.5M', '1.5M to 2M']

    Reference:
        Wang et al., "AlphaNet: Improved Training of Supernets with Alpha-Divergence", ICML 2021, supplement,
        figures 9 and 10.
    """
    require_integers("Use for example 5.", n_ranges=n_ranges)
    _refuse_empty("costs", costs)
    wanted, given = ({name: len(part) for name, part in values.items()} for values in (costs, accuracies))
    if wanted != given:
        raise ConfigurationError(
            "Argument `accuracies` is expected to hold as many numbers as `costs` for each method, but got "
            f"{given} for {wanted}. Evaluate every subnet."
        )
    worth = {name: _finite_vector("accuracies", values) for name, values in accuracies.items()}
    everything = np.concatenate([_finite_vector("costs", values) for values in costs.values()])
    edges = np.linspace(everything.min(), everything.max(), n_ranges + 1)
    figure = new_figure(7.2, 4.0)
    axes = figure.subplots()
    width = 0.8 / len(costs)
    for number, name in enumerate(costs):
        y, place = 100 * worth[name], np.digitize(costs[name], edges[1:-1])
        color = ACCENTS[number % len(ACCENTS)]
        axes.boxplot(
            [y[place == index] for index in range(n_ranges)],
            positions=[index + (number - (len(costs) - 1) / 2) * width for index in range(n_ranges)],
            widths=0.85 * width,
            whis=(0, 100),
            patch_artist=True,
            boxprops={"facecolor": color, "alpha": 0.35, "edgecolor": color},
            medianprops={"color": INK},
            whiskerprops={"color": color},
            capprops={"color": color},
            manage_ticks=False,
        )
        axes.plot([], [], color=color, linewidth=6, alpha=0.5, label=name)
    write = EngFormatter(sep="", places=None)
    bounds = [write(float(f"{edge:.3g}")) for edge in edges]  # three digits: labels stand side by side
    axes.set_xticks(range(n_ranges))
    axes.set_xticklabels([f"{low} to {high}" for low, high in pairwise(bounds)])
    tidy(axes, title)
    label_axes(axes, cost_name, f"{accuracy_name} (%)")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def _refuse_empty(name: str, values: Mapping[str, Sequence[float]]) -> None:
    if not values or not all(len(part) for part in values.values()):
        raise ConfigurationError(
            f"Argument `{name}` is expected to hold numbers for every name, but got none for "
            f"{[key for key, part in values.items() if not len(part)] or 'any'}. Leave empty ones out."
        )


def _finite_vector(name: str, values: Sequence[float]) -> FloatVector:
    vector = as_vector(name, values)
    infinite = int(np.isinf(vector).sum())
    if infinite:
        raise DataError(
            f"Argument `{name}` is expected to be finite, but got {infinite} infinite among {vector.size} values. "
            "Remove those subnets."
        )
    return vector
