"""Objectives: the loss of a draw."""

from nni_supernet_ext.objectives.distillation import InplaceDistillation
from nni_supernet_ext.objectives.task import TaskLoss

__all__ = ["InplaceDistillation", "TaskLoss"]
