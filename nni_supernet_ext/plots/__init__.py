"""Figures of a search, made without pyplot: nothing global is touched and no display is needed."""

from __future__ import annotations

from nni_supernet_ext.plots.accuracy import plot_accuracy
from nni_supernet_ext.plots.cell import plot_cell
from nni_supernet_ext.plots.distributions import plot_accuracy_boxes, plot_costs
from nni_supernet_ext.plots.loss_by_complexity import plot_loss_by_complexity
from nni_supernet_ext.plots.training import plot_training

__all__ = [
    "plot_accuracy",
    "plot_accuracy_boxes",
    "plot_cell",
    "plot_costs",
    "plot_loss_by_complexity",
    "plot_training",
]
