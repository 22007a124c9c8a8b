"""Compare predictions with the benchmark's accuracies: the metrics of a line of results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from grounds import Ground
from measure import SUBSET, places_of_subset
from protocols import Protocol

from nni_supernet_ext.benchmarks import BenchmarkOracle
from nni_supernet_ext.functional import (
    best_of_top,
    improvement,
    kendall_tau,
    kendall_tau_top,
    pearson_r,
    precision_at_top,
    regret,
    spearman_rho,
)

Vector = np.ndarray[Any, Any]


def line_metrics(
    found: Mapping[str, Any], protocol: Protocol, oracle: BenchmarkOracle, ground: Ground, indices: Sequence[int]
) -> dict[str, float]:
    """Compare what a run predicted with the benchmark's test accuracies.

    Args:
        found: ``predicted``, one number per architecture, higher for better; ``predicted_loss`` where there is one.
        protocol: Chooses the subset of 327 architectures, where more are evaluated.
        oracle: The benchmark's table.
        ground: The benchmark's costs.
        indices: Rows of the architectures.

    Returns:
        Metric name -> value. ``params_tau`` is what the number of parameters reaches on the same architectures;
        names with ``by_loss`` are of the order by loss, those with ``327`` of the subset.
    """
    actual = np.asarray(oracle.accuracies(indices), dtype=float)
    params = [ground.costs["params"](oracle.sample(index)) for index in indices]
    metrics = {
        **_metrics(found["predicted"], actual),
        "best_possible": float(actual.max()),
        "params_tau": kendall_tau(params, actual),
        "tau_with_params": kendall_tau(found["predicted"], params),
    }
    orders = {"tau": np.asarray(found["predicted"], dtype=float)}
    if "predicted_loss" in found:
        orders["tau_by_loss"] = -np.asarray(found["predicted_loss"], dtype=float)
    places = places_of_subset(oracle, protocol, indices)
    for name, predicted in orders.items():
        metrics[name] = kendall_tau(predicted, actual)
        if places:
            metrics[f"{name}_{SUBSET}"] = kendall_tau(predicted[places], actual[places])
    return metrics


def _metrics(predicted: Sequence[float], actual: Vector) -> dict[str, float]:
    n = len(actual)
    return {
        "tau": kendall_tau(predicted, actual),
        "spearman": spearman_rho(predicted, actual),
        "pearson": pearson_r(predicted, actual),
        "precision_top10pct": precision_at_top(predicted, actual, 0.1),
        # Ten architectures have one best: nothing to order.
        "tau_top10pct": kendall_tau_top(predicted, actual, 0.1) if n > 10 else math.nan,
        **{f"best_of_top{top}": best_of_top(predicted, actual, min(top, n)) for top in (1, 5, 10)},
        "regret": regret(predicted, actual),
        "regret_top10": regret(predicted, actual, min(10, n)),
        "improvement_top10": improvement(predicted, actual, min(10, n)),
    }
