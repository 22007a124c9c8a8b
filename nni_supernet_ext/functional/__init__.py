"""Pure functions on numbers, tensors and plain dicts: for any training loop, without NNI or Lightning."""

from __future__ import annotations

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
from nni_supernet_ext.functional.evolution import crossover, mutate, pareto_front
from nni_supernet_ext.functional.momentum import MomentumBuffers, separated_momentum_step
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

__all__ = [
    "BatchNormRecalibrator",
    "ComplexityTransform",
    "MomentumBuffers",
    "best_of_top",
    "bootstrap_interval",
    "complexity_aware_lr",
    "complexity_exponent",
    "crossover",
    "exponent_coefficients",
    "improvement",
    "kendall_tau",
    "kendall_tau_top",
    "mutate",
    "pareto_front",
    "pearson_r",
    "precision_at_top",
    "preserved_batch_norm",
    "recalibrate_batch_norm",
    "regret",
    "separated_momentum_step",
    "spearman_rho",
]
