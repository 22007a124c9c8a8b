"""Choose architectures and predict their accuracy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from images import Images, train_loader, valid_loader
from protocols import Protocol
from task import ImageClassification

from nni_supernet_ext.benchmarks import BenchmarkOracle
from nni_supernet_ext.core import SubnetEvaluator, Supernet, WeightStore
from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.strategies.journal import Journal

SUBSET = 327
"""Architectures that other authors report correlations on, of all that a benchmark has."""


def choose_architectures(oracle: BenchmarkOracle, protocol: Protocol) -> list[int]:
    """Choose architectures at random, one from each group of equal networks drawn, or take all.

    Args:
        oracle: The benchmark's table.
        protocol: Says how many, of which part of the space, and with which seed.

    Returns:
        Rows in ascending order; a group is represented by a random member.

    Raises:
        ConfigurationError: There are fewer different networks than asked for.
    """
    order = np.random.default_rng(protocol.architecture_seed).permutation(len(oracle))
    if protocol.operations is not None:
        kept = set(protocol.operations)
        order = np.array([row for row in order if set(oracle.sample(int(row)).values()) <= kept])
    if protocol.architectures == "all":
        return sorted(int(index) for index in order)
    _, first = np.unique(oracle.table[oracle.format.group][order], return_index=True)
    wanted = len(first) if protocol.architectures is None else int(protocol.architectures)
    if wanted > len(first):
        raise ConfigurationError(
            f"Setting `architectures` is expected to be at most {len(first)}, the number of different networks, "
            f"but got {wanted}. Use null for all of them, or all for every single architecture."
        )
    chosen = order[np.sort(first)][:wanted]
    return sorted(int(index) for index in chosen)


def check_truths(oracle: BenchmarkOracle, indices: Sequence[int]) -> None:
    """Refuse architectures without a measured accuracy, before anything is trained to be compared with it.

    Raises:
        DataError: The table has no accuracies, or some of these are missing.
    """
    accuracies = oracle.accuracies(indices)
    missing = [index for index, accuracy in zip(indices, accuracies, strict=True) if not np.isfinite(accuracy)]
    if missing:
        raise DataError(
            f"The table is expected to hold the accuracy of every architecture that is evaluated, but got none of "
            f"{len(missing)} of {len(indices)}, the first in row {missing[0]}. Load a table that holds them, or "
            "remove their rows from it."
        )


def places_of_subset(oracle: BenchmarkOracle, protocol: Protocol, indices: Sequence[int]) -> list[int]:
    """Return where among the chosen architectures those are that ``architectures=327`` would choose.

    Returns:
        Places in ``indices``; empty where no more than that many are evaluated, or not so many networks differ.
    """
    groups = np.unique(oracle.table[oracle.format.group][list(indices)])
    if len(indices) <= SUBSET or len(groups) < SUBSET:
        return []
    chosen = set(choose_architectures(oracle, replace(protocol, architectures=SUBSET)))
    return [place for place, index in enumerate(indices) if index in chosen]


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
