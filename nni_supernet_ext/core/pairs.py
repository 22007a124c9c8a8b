"""Samples that together hold every pair of candidates of two choices: a covering array of strength two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray


def samples_of_all_pairs(
    candidates: Mapping[str, Sequence[Any]], rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Yield few samples among which any two candidates of different choices occur together.

    Greedy: each sample starts from a pair that is still missing and takes, choice by choice in random order, the
    candidate that completes most missing pairs. The number of samples is at least the product of the two longest
    lists of candidates and grows with the logarithm of the number of choices.

    Args:
        candidates: Candidates of each choice, by label.
        rng: Decides the order of choices and among equals.

    Yields:
        Samples, one candidate of each choice.

    Example:
        >>> rows = list(samples_of_all_pairs({"a": [0, 1], "b": [0, 1], "c": [0, 1]}, np.random.default_rng(0)))
        >>> len({(row["a"], row["c"]) for row in rows})
        4
    """
    labels = list(candidates)
    sizes = [len(candidates[label]) for label in labels]
    if len(labels) < 2:
        for value in candidates[labels[0]] if labels else ():
            yield {labels[0]: value}
        return
    missing: dict[tuple[int, int], NDArray[np.bool_]] = {
        (i, j): np.ones((sizes[i], sizes[j]), dtype=bool) for i, j in combinations(range(len(labels)), 2)
    }
    while left := [pair for pair, table in missing.items() if table.any()]:
        (i, j) = left[int(rng.integers(len(left)))]
        row: dict[int, int] = dict(zip((i, j), rng.choice(np.argwhere(missing[i, j])).tolist(), strict=True))
        for k in rng.permutation(len(labels)).tolist():
            if k not in row:
                gains = np.zeros(sizes[k], dtype=np.int64)
                for other, value in row.items():
                    gains += missing[k, other][:, value] if k < other else missing[other, k][value]
                row[k] = int(rng.choice(np.flatnonzero(gains == gains.max())))
        for i, j in missing:
            missing[i, j][row[i], row[j]] = False
        yield {label: candidates[label][row[number]] for number, label in enumerate(labels)}
