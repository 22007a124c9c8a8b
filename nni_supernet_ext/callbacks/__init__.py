"""Callbacks that own a decision of the optimizer step, or watch the training."""

from nni_supernet_ext.callbacks.complexity_lr import ComplexityAwareLR
from nni_supernet_ext.callbacks.momentum_separation import MomentumSeparation

__all__ = ["ComplexityAwareLR", "MomentumSeparation"]
