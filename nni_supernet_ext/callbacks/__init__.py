"""Callbacks that own a decision of the optimizer step, or watch the training."""

from nni_supernet_ext.callbacks.complexity_lr import ComplexityAwareLR
from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.callbacks.gradient_variance import GradientVariance
from nni_supernet_ext.callbacks.history import TrainingHistory
from nni_supernet_ext.callbacks.largest_regularization import LargestSubnetRegularization
from nni_supernet_ext.callbacks.momentum_separation import MomentumSeparation
from nni_supernet_ext.callbacks.path_trainability import PathTrainability

__all__ = [
    "ComplexityAwareLR",
    "CosineLR",
    "GradientVariance",
    "LargestSubnetRegularization",
    "MomentumSeparation",
    "PathTrainability",
    "TrainingHistory",
]
