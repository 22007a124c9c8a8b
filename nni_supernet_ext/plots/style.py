"""The look that all figures share."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

INK, GREY, PALE = "#22303c", "#7b8894", "#dfe4e8"
BLUE, ORANGE, GREEN, RED = "#2b6cb0", "#dd7b1c", "#2f8f5b", "#c23b3b"
ACCENTS = (ORANGE, BLUE, GREEN, RED)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def tidy(axes: Axes, title: str | None = None) -> None:
    """Keep two spines, a pale grid behind the data, and a title at the left."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(title, loc="left", fontsize=11, color=INK)


def label_axes(axes: Axes, x: str, y: str) -> None:
    """Name both axes."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)


def thousands(axis: Any) -> None:
    """Write large numbers as 20k or 1.2M."""
    axis.set_major_formatter(EngFormatter(sep=""))
