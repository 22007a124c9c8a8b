"""Compare predictions with the benchmark's accuracies: the metrics of a line of results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
        Metric name -> value; NaN for what a prediction that is NaN leaves undefined, and for Pearson's correlation
        where one is infinite. ``params_tau`` is what the number of parameters reaches on the same architectures;
        names with ``by_loss`` are of the order by loss, those with ``327`` of the subset.
    """
    actual = np.asarray(oracle.accuracies(indices), dtype=float)
    params = np.array([ground.costs["params"](oracle.sample(index)) for index in indices], dtype=float)
    orders = {"tau": np.asarray(found["predicted"], dtype=float)}
    metrics = {
        **_metrics(orders["tau"], actual),
        "best_possible": float(actual.max()),
        "params_tau": kendall_tau(params, actual),
        "tau_with_params": _tau(orders["tau"], params),
    }
    if "predicted_loss" in found:
        orders["tau_by_loss"] = -np.asarray(found["predicted_loss"], dtype=float)
    places = places_of_subset(oracle, protocol, indices)
    for name, predicted in orders.items():
        metrics[name] = _tau(predicted, actual)
        if places:
            metrics[f"{name}_{SUBSET}"] = _tau(predicted[places], actual[places])
    return metrics


def _tau(predicted: Vector, other: Vector) -> float:
    return math.nan if np.isnan(predicted).any() else kendall_tau(predicted, other)


def _metrics(predicted: Vector, actual: Vector) -> dict[str, float]:
    n = len(actual)
    metrics: dict[str, Callable[..., float]] = {
        "tau": kendall_tau,
        "spearman": spearman_rho,
        "pearson": pearson_r,
        "precision_top10pct": partial(precision_at_top, fraction=0.1),
        "tau_top10pct": partial(kendall_tau_top, fraction=0.1),
        **{f"best_of_top{top}": partial(best_of_top, n=min(top, n)) for top in (1, 5, 10)},
        "regret": regret,
        "regret_top10": partial(regret, n=min(10, n)),
        "improvement_top10": partial(improvement, n=min(10, n)),
    }
    # Ten architectures have one best: nothing to order.
    undefined = {"tau_top10pct"} if n <= 10 else set()
    if not np.isfinite(predicted).all():
        undefined |= set(metrics) if np.isnan(predicted).any() else {"pearson"}
    return {name: math.nan if name in undefined else metric(predicted, actual) for name, metric in metrics.items()}
