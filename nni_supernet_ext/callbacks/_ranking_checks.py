"""What `RankingConsistency` refuses before training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nni_supernet_ext._integers import integer_problems
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.errors import DataError, SpaceError, SupernetError

if TYPE_CHECKING:
    from nni_supernet_ext.callbacks.ranking_consistency import RankingConsistency

_MODES = ("max", "min")


def ranking_problems(ranking: RankingConsistency, plan: Plan) -> Iterator[str]:
    """Say what cannot be ranked.

    Args:
        ranking: The callback.
        plan: The run.

    Yields:
        Messages, each with its remedy.
    """
    yield from _numbers(ranking)
    pairs = list(_pairs(ranking))
    yield from pairs or _metrics(ranking)
    unknown = list(_unknown(ranking, plan))
    if unknown:
        yield (
            f"Argument `samples` is expected to hold architectures of the space, but got {len(unknown)} others of "
            f"{len(ranking.samples)}, the first: {unknown[0]}"
        )


def _numbers(ranking: RankingConsistency) -> Iterator[str]:
    yield from integer_problems("Use 1 to measure after every epoch.", every=ranking.every)
    yield from integer_problems("Use 20, the default.", least=0, recalibrate_batches=ranking.recalibrate_batches)
    yield from integer_problems(
        "Use None for the whole loader.", optional=True, limit_batches=ranking.limit_batches
    )
    if ranking.mode not in _MODES:
        yield (
            f"Argument `mode` is expected to be one of {_MODES}, but got {ranking.mode!r}. Use 'max' for an "
            "accuracy, 'min' for a loss."
        )


def _pairs(ranking: RankingConsistency) -> Iterator[str]:
    shape, n = ranking.truths.shape, len(ranking.samples)
    if shape != (n,):
        yield (
            f"Argument `truths` is expected to hold one number for each of {n} samples, but got the shape {shape}. "
            "Give both in the same order."
        )
    elif n < 2:
        yield (
            f"Argument `samples` is expected to hold at least 2 architectures, but got {n}. A ranking needs more: "
            "100 or so."
        )
    elif np.isnan(ranking.truths).any():
        missing = np.isnan(ranking.truths).nonzero()[0].tolist()
        yield (
            f"Argument `truths` is expected to be free of NaN, but got {len(missing)} of {n}, the first at "
            f"{missing[0]}. Leave those architectures out."
        )


def _metrics(ranking: RankingConsistency) -> Iterator[str]:
    """Try each metric on the truths themselves: what they refuse now they would refuse after the first epoch."""
    for name, metric in ranking.metrics.items():
        try:
            metric(ranking.truths, ranking.truths)
        except (SupernetError, TypeError, ValueError) as error:
            yield (
                f"Argument `metrics` is expected to hold functions of predicted and true accuracies, but {name!r} "
                f"raised: {error} Bind its further arguments with `functools.partial`."
            )


def _unknown(ranking: RankingConsistency, plan: Plan) -> Iterator[str]:
    for index, sample in enumerate(ranking.samples):
        try:
            plan.supernet.domain.validate(sample, f"samples[{index}]")
        except (SpaceError, DataError) as error:
            yield str(error)
