"""Callbacks that own a decision of the optimizer step, or watch the training."""

from nni_supernet_ext.callbacks.complexity_lr import ComplexityAwareLR
from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.callbacks.gradient_variance import GradientVariance
from nni_supernet_ext.callbacks.history import TrainingHistory
from nni_supernet_ext.callbacks.largest_regularization import LargestSubnetRegularization
from nni_supernet_ext.callbacks.loss_by_complexity import LossByComplexity
from nni_supernet_ext.callbacks.momentum_separation import MomentumSeparation
from nni_supernet_ext.callbacks.path_trainability import PathTrainability
from nni_supernet_ext.callbacks.ranking_consistency import RankingConsistency

__all__ = [
    "ComplexityAwareLR",
    "CosineLR",
    "GradientVariance",
    "LargestSubnetRegularization",
    "LossByComplexity",
    "MomentumSeparation",
    "PathTrainability",
    "RankingConsistency",
    "TrainingHistory",
]
