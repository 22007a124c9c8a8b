"""A cell drawn as a graph: nodes in a row, one arrow per edge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from nni_supernet_ext.errors import SpaceError
from nni_supernet_ext.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, RED, new_figure

_COLOURS = {"skip_connect": GREY, "conv_1x1": GREEN, "conv_3x3": BLUE, "avg_pool_3x3": ORANGE}
_NAMES = {"skip_connect": "skip", "conv_1x1": "1x1 conv", "conv_3x3": "3x3 conv", "avg_pool_3x3": "3x3 avg pool"}
_NONE = "none"
_STEP = 2.0
"""Distance between two nodes."""


def plot_cell(sample: Mapping[str, Any], title: str | None = None) -> Figure:
    """Draw a cell whose choices are the operations on the edges of a graph, such as NAS-Bench-201's.

    Edges that carry ``none`` are pale and dotted; those that cannot reach the output, or that the input cannot
    reach, are dashed.

    Args:
        sample: Edge label -> operation. A label ends with ``{from}_{to}``, for example ``cell/0_1``.
        title: Title of the figure.

    Returns:
        The figure; save it with ``figure.savefig(path)``.

    Raises:
        SpaceError: A label does not end with two node numbers, the first lower than the second; two labels name
            one edge, as those of two cells do; or there is no label.

    Example:
        >>> figure = plot_cell({'cell/0_1': 'conv_3x3', 'cell/0_2': 'none', 'cell/1_2': 'skip_connect'})
        >>> sorted(text.get_text() for text in figure.axes[0].texts)
        ['1', '3x3 conv', 'input', 'none', 'output', 'skip']
    """
    edges = _edges(sample)
    last = max(target for _, target in edges)
    alive = _alive(edges, last)
    heights = _heights(edges)
    figure = new_figure(8.0, 3.9)
    axes = figure.subplots()
    for (source, target), operation in edges.items():
        _draw_edge(axes, source, target, heights[source, target], operation, (source, target) in alive)
    _draw_nodes(axes, last)
    _finish(axes, last, min(heights.values()), max(heights.values()), title)
    return figure


def _edges(sample: Mapping[str, Any]) -> dict[tuple[int, int], str]:
    labels: dict[tuple[int, int], str] = {}
    for label in sample:
        other = labels.setdefault(_nodes(label), label)
        if other != label:
            raise SpaceError(
                f"Argument `sample` is expected to name each edge of one cell once, but got {other!r} and "
                f"{label!r}. Draw one cell at a time, from the labels with its prefix."
            )
    if not labels:
        raise SpaceError(
            "Argument `sample` is expected to name at least one edge, but got none. Give the choices of a cell."
        )
    return {nodes: str(sample[label]) for nodes, label in labels.items()}


def _heights(edges: Iterable[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """Bend edges that pass over nodes, alternately up and down, longer ones further."""
    heights, sign = {}, 1
    for source, target in sorted(edges, key=lambda edge: (edge[1] - edge[0], edge)):
        passed = target - source - 1
        heights[source, target] = sign * (0.85 + 0.75 * (passed - 1)) if passed else 0.0
        sign = -sign if passed else sign
    return heights


def _nodes(label: str) -> tuple[int, int]:
    match = re.search(r"(\d+)_(\d+)$", str(label))
    if match is None or int(match[1]) >= int(match[2]):
        raise SpaceError(
            f"Argument `sample` is expected to have labels that end with '{{from}}_{{to}}', but got {label!r}. "
            "Draw only spaces whose choices lie on the edges of a cell."
        )
    return int(match[1]), int(match[2])


def _alive(edges: Mapping[tuple[int, int], str], last: int) -> set[tuple[int, int]]:
    """Return the edges on a path from the input to the output."""
    carrying = sorted(edge for edge, operation in edges.items() if operation != _NONE)
    from_input, to_output = {0}, {last}
    for source, target in sorted(carrying):
        if source in from_input:
            from_input.add(target)
    for source, target in sorted(carrying, key=lambda edge: -edge[1]):
        if target in to_output:
            to_output.add(source)
    return {edge for edge in carrying if edge[0] in from_input and edge[1] in to_output}


def _draw_edge(axes: Axes, source: int, target: int, height: float, operation: str, alive: bool) -> None:
    """Draw one arrow whose middle lies ``height`` above the row of nodes, and its operation there."""
    none = operation == _NONE
    colour = PALE if none else _COLOURS.get(operation, RED)
    start, end = source * _STEP, target * _STEP
    axes.add_patch(
        FancyArrowPatch(
            (start, 0),
            (end, 0),
            # The curve's middle lies half as high as its control point.
            connectionstyle=f"arc3,rad={-2 * height / (end - start)}",
            arrowstyle="-|>",
            mutation_scale=13,
            shrinkA=17,
            shrinkB=17,
            color=colour,
            linewidth=1.3 if none else 2.2,
            linestyle=":" if none else "-" if alive else "--",
        )
    )
    axes.text(
        (start + end) / 2,
        height,
        _NAMES.get(operation, operation),
        ha="center",
        va="center",
        fontsize=9,
        color=GREY if none else colour,
        bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": PALE if none else colour},
        zorder=4,
    )


def _draw_nodes(axes: Axes, last: int) -> None:
    names = {0: "input", last: "output"}
    for node in range(last + 1):
        axes.plot(node * _STEP, 0, "o", markersize=33, color=INK, zorder=5)
        name = names.get(node, str(node))
        axes.text(node * _STEP, 0, name, ha="center", va="center", color="white", fontsize=8, zorder=6)


def _finish(axes: Axes, last: int, lowest: float, highest: float, title: str | None) -> None:
    axes.set_xlim(-0.5, last * _STEP + 0.5)
    axes.set_ylim(lowest - 0.45, highest + 0.35)
    axes.axis("off")
    if title:
        axes.set_title(title, loc="left", fontsize=11, color=INK)
