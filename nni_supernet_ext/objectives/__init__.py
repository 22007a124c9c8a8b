"""Objectives: the loss of a draw."""

from nni_supernet_ext.objectives.task import TaskLoss

__all__ = ["TaskLoss"]
