"""Select the top of a ranking that may contain ties."""

from __future__ import annotations

import math
import operator

import numpy as np
from numpy.typing import NDArray

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional._vectors import FloatVector


def top_count(fraction: float, size: int) -> int:
    """Return how many of ``size`` items a fraction is, rounded up."""
    if not 0 < fraction <= 1:
        raise ConfigurationError(
            f"Argument `fraction` is expected to be within (0, 1], but got {fraction}. Use 0.1 for the top 10 %."
        )
    # 0.07 * 100 is slightly more than 7 in floats and must not become 8.
    return max(1, math.ceil(fraction * size - 1e-9 * size))


def check_integer(name: str, number: int) -> None:
    """Raise unless a number is whole by its type."""
    try:
        operator.index(number)
    except TypeError:
        raise ConfigurationError(
            f"Argument `{name}` is expected to be an integer, but got {number!r}. Use `round` on a computed one."
        ) from None


def check_count(name: str, count: int, size: int) -> None:
    """Raise unless it is a whole number and 1 <= count <= size."""
    check_integer(name, count)
    if not 1 <= count <= size:
        raise ConfigurationError(
            f"Argument `{name}` is expected to be within [1, {size}], but got {count}. "
            "Select no more subnets than were evaluated."
        )


def at_least_as_good(scores: FloatVector, count: int) -> NDArray[np.bool_]:
    """Return which items score no less than the ``count``-th best, shape (n,); more than that if it ties."""
    return scores >= np.partition(scores, scores.size - count)[scores.size - count]


def selection_chances(scores: FloatVector, count: int) -> FloatVector:
    """Return each item's chance to be among the ``count`` best if ties are broken at random, shape (n,)."""
    inside = at_least_as_good(scores, count)
    tied = inside & (scores == scores[inside].min())
    chances = inside.astype(np.float64)
    chances[tied] = (count - (inside.sum() - tied.sum())) / tied.sum()
    return chances


def expected_best(scores: FloatVector, values: FloatVector, count: int) -> float:
    """Return the expected largest value among the ``count`` best scores if ties are broken at random."""
    chances = selection_chances(scores, count)
    sure = values[chances == 1.0]
    tied = np.sort(values[(chances > 0.0) & (chances < 1.0)])[::-1]
    floor = float(sure.max()) if sure.size else -math.inf
    open_slots, expected, none_yet = count - sure.size, 0.0, 1.0
    # From the best tied value down: with chance slots / left it is selected and decides, else the next one
    # may.
    for position, value in enumerate(tied):
        chance = min(1.0, open_slots / (tied.size - position))
        expected += none_yet * chance * max(float(value), floor)
        none_yet *= 1.0 - chance
        if none_yet == 0.0:
            break
    return expected if tied.size else floor
