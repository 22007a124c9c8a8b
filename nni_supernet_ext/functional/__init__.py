"""Pure functions on numbers, tensors and plain dicts: for any training loop, without NNI or Lightning."""

from __future__ import annotations

from nni_supernet_ext.functional.alpha_divergence import adaptive_alpha_divergence, alpha_divergence
from nni_supernet_ext.functional.batch_norm import (
    BatchNormRecalibrator,
    preserved_batch_norm,
    recalibrate_batch_norm,
)
from nni_supernet_ext.functional.bootstrap import bootstrap_interval
from nni_supernet_ext.functional.complexity_lr import (
    ComplexityTransform,
    complexity_aware_lr,
    complexity_exponent,
    exponent_coefficients,
)
from nni_supernet_ext.functional.conditional_weights import copy_pairs, dependency_cycle, weight_keys
from nni_supernet_ext.functional.convergence import complexity_convergence, convergence_step
from nni_supernet_ext.functional.divergence import (
    jensen_shannon_divergence,
    kl_divergence,
    reversed_kl_divergence,
)
from nni_supernet_ext.functional.evolution import crossover, mutate, pareto_front
from nni_supernet_ext.functional.gradient_agreement import disagreement, disagreement_p_value, within_and_between
from nni_supernet_ext.functional.gradient_diagnostics import (
    gradient_cosine,
    gradient_deviation,
    hamming_distance,
)
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
from nni_supernet_ext.functional.rank_correlation import kendall_tau, kendall_tau_top, pearson_r, spearman_rho
from nni_supernet_ext.functional.top_selection import (
    best_of_top,
    improvement,
    precision_at_top,
    regret,
    removal_curve,
    top_mean,
)
from nni_supernet_ext.functional.trainability import Trainability, neural_tangent_kernel, trainability
from nni_supernet_ext.functional.training_free import grad_norm, naswot, snip, synflow

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
    "complexity_convergence",
    "complexity_exponent",
    "convergence_step",
    "copy_pairs",
    "crossover",
    "decay_groups",
    "dependency_cycle",
    "disagreement",
    "disagreement_p_value",
    "exponent_coefficients",
    "grad_norm",
    "gradient_cosine",
    "gradient_deviation",
    "gradient_norm_bound",
    "gradient_similarity",
    "hamming_distance",
    "importance_weight",
    "improvement",
    "jensen_shannon_divergence",
    "kendall_tau",
    "kendall_tau_top",
    "kl_divergence",
    "min_cut",
    "mutate",
    "naswot",
    "neural_tangent_kernel",
    "pareto_front",
    "pearson_r",
    "precision_at_top",
    "preserved_batch_norm",
    "recalibrate_batch_norm",
    "regret",
    "removal_curve",
    "resolve_schedule",
    "reversed_kl_divergence",
    "separated_momentum_step",
    "smoothed_distribution",
    "snip",
    "spearman_rho",
    "synflow",
    "top_mean",
    "trainability",
    "weight_keys",
    "weights_only_decay",
    "within_and_between",
]
