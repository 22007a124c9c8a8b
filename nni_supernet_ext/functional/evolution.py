"""Evolutionary operators on samples, and the filter for the best trade-offs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nni_supernet_ext.errors import ConfigurationError, SpaceError
from nni_supernet_ext.functional._vectors import VectorLike, as_pair

__all__ = ["crossover", "mutate", "pareto_front"]


def mutate(
    sample: Mapping[str, Any],
    candidates: Mapping[str, Sequence[Any]],
    probability: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return a copy of a sample in which each label is drawn anew with the given probability.

    A new value is drawn uniformly from all candidates, so it may equal the old one. A value that is a list of
    candidates (a choice of several) is replaced by as many distinct candidates, in the order of the
    candidates.

    Args:
        sample: Label -> value; a value is one of the label's candidates or a list of some of them.
        candidates: Label -> its candidates. Decides the order of the draws, so that the order of the sample's
            labels does not matter.
        probability: Chance of each label to be drawn anew, in [0, 1]; published searches use 0.1.
        rng: Generator that makes all draws.

    Returns:
        A new sample with the labels in the order of ``candidates``.

    Raises:
        ConfigurationError: If ``probability`` is not within [0, 1].
        SpaceError: If the labels differ, or a value does not come from its candidates or holds one of them twice.

    Example:
        >>> space = {"depth": [1, 2, 3], "skip": [0, 1, 2]}
        >>> mutate({"depth": 2, "skip": [0, 1]}, space, 0.0, np.random.default_rng(0))
        {'depth': 2, 'skip': [0, 1]}
        >>> child = mutate({"depth": 2, "skip": [0, 1]}, space, 1.0, np.random.default_rng(0))
        >>> child["depth"] in space["depth"], len(child["skip"])
        (True, 2)

    Reference:
        Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
        Algorithm 1: the mutation of its evolutionary search.
    """
    if not 0 <= probability <= 1:
        raise ConfigurationError(
            f"Argument `probability` is expected to be within [0, 1], but got {probability}. "
            "Use 0.1 for the published setting."
        )
    _check_labels("sample", sample, "candidates", candidates)
    redraws = rng.random(len(candidates)) < probability
    child = {}
    for (label, options), redraw in zip(candidates.items(), redraws, strict=True):
        count = _number_chosen(label, sample[label], options)
        child[label] = _drawn(options, count, rng) if redraw else _copied(sample[label])
    return child


def crossover(a: Mapping[str, Any], b: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return a sample that takes each label from one of two parents with equal chance.

    Args:
        a: One parent, label -> value. Decides the order of the draws.
        b: The other parent, with the same labels in any order.
        rng: Generator that makes all draws.

    Returns:
        A new sample with the labels in the order of ``a``.

    Raises:
        SpaceError: If the parents have different labels.

    Example:
        >>> child = crossover({"x": 0, "y": 0}, {"x": 1, "y": 0}, np.random.default_rng(0))
        >>> child["x"] in (0, 1), child["y"]
        (True, 0)

    Reference:
        Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
        Algorithm 1: the crossover of its evolutionary search.
    """
    _check_labels("a", a, "b", b)
    from_a = rng.random(len(a)) < 0.5
    return {label: _copied(a[label] if first else b[label]) for label, first in zip(a, from_a, strict=True)}


def pareto_front(costs: VectorLike, values: VectorLike) -> list[int]:
    """Return the items that no other item beats in cost and in value at once.

    An item is left out if another one costs no more and is worth no less, and is strictly better in one of
    the two. Items that tie in both stand or fall together: all of them are returned.

    Args:
        costs: Cost of each item, lower is better, shape (n,).
        values: Value of each item, higher is better, shape (n,).

    Returns:
        Indices of the front by rising cost (and, thus, rising value); ties by rising index. Takes O(n log n).

    Raises:
        ConfigurationError: If the arguments are not one-dimensional and of the same length.
        DataError: If one of them contains NaN.

    Example:
        >>> pareto_front(costs=[3, 1, 2, 2], values=[0.9, 0.5, 0.7, 0.6])
        [1, 2, 0]
    """
    cost, value = as_pair(("costs", "values"), costs, values, at_least=0)
    if cost.size == 0:
        return []
    order = np.lexsort((-value, cost))
    cost, value = cost[order], value[order]
    # The first item of each group of equal cost has the group's best value; it has to beat all cheaper
    # groups.
    first = np.searchsorted(cost, cost, side="left")
    best_until = np.maximum.accumulate(value)
    beats_cheaper = (first == 0) | (value > best_until[np.maximum(first - 1, 0)])
    return [int(index) for index in order[(value == value[first]) & beats_cheaper]]


def _check_labels(left_name: str, left: Mapping[str, Any], right_name: str, right: Mapping[str, Any]) -> None:
    """Raise if two mappings do not have the same keys."""
    difference = sorted(map(str, left.keys() ^ right.keys()))
    if difference:
        raise SpaceError(
            f"Arguments `{left_name}` and `{right_name}` are expected to have the same labels, but "
            f"{', '.join(difference)} occur(s) in only one of them. Take both from the same space."
        )


def _number_chosen(label: str, value: Any, options: Sequence[Any]) -> int | None:
    """Return how many candidates a value holds, or None if it is a single one."""
    if value in options:
        return None
    if isinstance(value, (list, tuple)) and all(value.count(item) <= list(options).count(item) for item in value):
        return len(value)
    raise SpaceError(
        f"Argument `sample` is expected to have one or several of {list(options)!r} for label {label!r}, but "
        f"got {value!r}. Take both from the same space, and each candidate once."
    )


def _drawn(options: Sequence[Any], count: int | None, rng: np.random.Generator) -> Any:
    """Draw one candidate, or a list of ``count`` distinct ones."""
    # Positions are drawn, not candidates: numpy would turn the candidates into its own types.
    if count is None:
        return _copied(options[int(rng.integers(len(options)))])
    chosen = rng.choice(len(options), size=count, replace=False)
    return [_copied(options[int(position)]) for position in sorted(chosen)]


def _copied(value: Any) -> Any:
    """Copy a list, so that parent and child do not share it."""
    return list(value) if isinstance(value, list) else value
