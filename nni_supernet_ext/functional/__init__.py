"""Pure functions on numbers, tensors and plain dicts: for any training loop, without NNI or Lightning."""

from __future__ import annotations

from nni_supernet_ext.functional.alpha_divergence import adaptive_alpha_divergence, alpha_divergence
from nni_supernet_ext.functional.batch_norm import (
    BatchNormRecalibrator,
    preserved_batch_norm,
    recalibrate_batch_norm,
)
from nni_supernet_ext.functional.complexity_lr import (
    ComplexityTransform,
    complexity_aware_lr,
    complexity_exponent,
    exponent_coefficients,
)
from nni_supernet_ext.functional.divergence import (
    jensen_shannon_divergence,
    kl_divergence,
    reversed_kl_divergence,
)
from nni_supernet_ext.functional.evolution import crossover, mutate, pareto_front
from nni_supernet_ext.functional.gradient_moments import GradientMoments
from nni_supernet_ext.functional.graph_split import Cut, gradient_similarity, min_cut
from nni_supernet_ext.functional.importance import (
    gradient_norm_bound,
    importance_weight,
    resolve_schedule,
    smoothed_distribution,
)
from nni_supernet_ext.functional.momentum import MomentumBuffers, separated_momentum_step
from nni_supernet_ext.functional.norm_average import NormAverage
from nni_supernet_ext.functional.param_groups import decay_groups, weights_only_decay
from nni_supernet_ext.functional.ranking import (
    best_of_top,
    bootstrap_interval,
    improvement,
    kendall_tau,
    kendall_tau_top,
    pearson_r,
    precision_at_top,
    regret,
    spearman_rho,
)
from nni_supernet_ext.functional.trainability import Trainability, neural_tangent_kernel, trainability

__all__ = [
    "BatchNormRecalibrator",
    "ComplexityTransform",
    "Cut",
    "GradientMoments",
    "MomentumBuffers",
    "NormAverage",
    "Trainability",
    "adaptive_alpha_divergence",
    "alpha_divergence",
    "best_of_top",
    "bootstrap_interval",
    "complexity_aware_lr",
    "complexity_exponent",
    "crossover",
    "decay_groups",
    "exponent_coefficients",
    "gradient_norm_bound",
    "gradient_similarity",
    "importance_weight",
    "improvement",
    "jensen_shannon_divergence",
    "kendall_tau",
    "kendall_tau_top",
    "kl_divergence",
    "min_cut",
    "mutate",
    "neural_tangent_kernel",
    "pareto_front",
    "pearson_r",
    "precision_at_top",
    "preserved_batch_norm",
    "recalibrate_batch_norm",
    "regret",
    "resolve_schedule",
    "reversed_kl_divergence",
    "separated_momentum_step",
    "smoothed_distribution",
    "spearman_rho",
    "trainability",
    "weights_only_decay",
]
