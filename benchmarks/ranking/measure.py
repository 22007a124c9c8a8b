"""Predict the accuracy of the chosen architectures and compare the ranking with the benchmark's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from grounds import Ground
from images import Images, train_loader, valid_loader
from protocols import Protocol
from task import ImageClassification

from nni_supernet_ext.benchmarks import BenchmarkOracle
from nni_supernet_ext.core import SubnetEvaluator, Supernet, WeightStore
from nni_supernet_ext.functional import (
    best_of_top,
    improvement,
    kendall_tau,
    kendall_tau_top,
    precision_at_top,
    spearman_rho,
)
from nni_supernet_ext.strategies.journal import Journal


def choose_architectures(oracle: BenchmarkOracle, protocol: Protocol) -> list[int]:
    """Choose architectures at random, one from each group of equal networks drawn.

    Args:
        oracle: The benchmark's table.
        protocol: Says how many, of which part of the space, and with which seed.

    Returns:
        Rows in ascending order; a group is represented by a random member.
    """
    order = np.random.default_rng(protocol.architecture_seed).permutation(len(oracle))
    if protocol.operations is not None:
        kept = set(protocol.operations)
        order = np.array([row for row in order if set(oracle.sample(int(row)).values()) <= kept])
    _, first = np.unique(oracle.table[oracle.format.group][order], return_index=True)
    chosen = order[np.sort(first)][: protocol.architectures]
    return sorted(int(index) for index in chosen)


def predict(
    supernet: Supernet,
    weights: WeightStore,
    protocol: Protocol,
    seed: int,
    images: Images,
    oracle: BenchmarkOracle,
    indices: Sequence[int],
    folder: Path,
) -> dict[str, Any]:
    """Evaluate every architecture with the supernet's weights; go on where a killed evaluation stopped.

    Returns:
        ``accuracy`` and ``loss``, one per architecture, and ``seconds`` spent on all of them.
    """
    recalibrated = protocol.bn_mode == "recalibrated"
    evaluator = SubnetEvaluator(
        supernet,
        ImageClassification(protocol, cosine=False),
        valid_loader(images, protocol),
        calibration=train_loader(images, protocol, seed) if recalibrated else None,
        recalibrate_batches=protocol.recalibration_batches,
        seed=seed,
        activate=weights.activate,
    )
    journal = Journal(folder / "evaluations.jsonl", {"protocol": protocol.as_dict(), "seed": seed})
    for index in indices:
        sample = oracle.sample(index)
        if journal.get(sample) is None:
            since = time.perf_counter()
            metrics = evaluator.evaluate(sample)
            journal.add(sample, {**metrics, "seconds": round(time.perf_counter() - since, 4)})
    entries = [journal.get(oracle.sample(index)) or {} for index in indices]
    return {
        "accuracy": [round(100 * entry["val_acc"], 4) for entry in entries],
        "loss": [round(entry["val_loss"], 5) for entry in entries],
        "seconds": round(sum(entry["seconds"] for entry in entries), 1),
    }


def ranking_metrics(
    predicted: Sequence[float], oracle: BenchmarkOracle, ground: Ground, indices: Sequence[int]
) -> dict[str, float]:
    """Compare a prediction with the benchmark's test accuracies.

    Args:
        predicted: One number per architecture, higher for better.
        oracle: The benchmark's table.
        ground: The benchmark's costs.
        indices: Rows of the architectures.

    Returns:
        Metric name -> value; ``params_tau`` is what the number of parameters reaches on the same ones.
    """
    actual = oracle.accuracies(indices)
    params = [ground.costs["params"](oracle.sample(index)) for index in indices]
    return {
        "tau": kendall_tau(predicted, actual),
        "spearman": spearman_rho(predicted, actual),
        "precision_top10pct": precision_at_top(predicted, actual, 0.1),
        "tau_top10pct": kendall_tau_top(predicted, actual, 0.1),
        **{f"best_of_top{n}": best_of_top(predicted, actual, min(n, len(indices))) for n in (1, 5, 10)},
        "improvement_top10": improvement(predicted, actual, min(10, len(indices))),
        "best_possible": float(actual.max()),
        "params_tau": kendall_tau(params, actual),
        "tau_with_params": kendall_tau(predicted, params),
    }
