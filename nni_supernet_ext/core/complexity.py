"""Complexity measures of subnets, and the smallest and the largest subnet under them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.flop_count import flop_count
from nni_supernet_ext.core.parameter_count import count_all, count_weights, parameter_count
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.core.units import UnitSum
from nni_supernet_ext.errors import ConfigurationError

Complexity = Callable[[Sample], float]
MEASURES = ("parameters", "weights", "flops")
_GRID_LIMIT = 20_000
_STARTS = 20
_EXPENSIVE_GRID_LIMIT = 200
_EXPENSIVE_STARTS = 3


@dataclass(frozen=True)
class Extremes:
    """The smallest and the largest subnet of a space under a complexity.

    Attributes:
        smallest: Sample of the smallest subnet.
        largest: Sample of the largest subnet.
        minimum: Its complexity.
        maximum: Its complexity.
        exact: True if proven; False if found by coordinate search from random starts.

    Example:
        >>> from nni_supernet_ext.testing import ToySpace
        >>> ends = find_extremes(lambda sample: sample['width'] * (sample['op'] != 'skip'), Domain(ToySpace()))
        >>> ends.minimum, ends.maximum, ends.largest
        (0.0, 8.0, {'width': 8, 'op': 'conv'})
    """

    smallest: dict[str, Any]
    largest: dict[str, Any]
    minimum: float
    maximum: float
    exact: bool


def resolve_complexity(measure: str | Complexity, supernet: Supernet, inputs: Any = None) -> Complexity:
    """Turn a complexity argument into a function of the sample.

    Args:
        measure: ``'parameters'`` (all elements, frozen ones too), ``'weights'`` (convolution and linear weights
            only, as the dynamic supernet training authors count), ``'flops'`` (multiply-adds per example),
            or a function ``sample -> number``.
        supernet: The supernet to measure.
        inputs: Example input batch; needed for ``'flops'``.

    Returns:
        Function from a sample to its complexity.

    Raises:
        ConfigurationError: Unknown measure, or ``'flops'`` without an example input.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> resolve_complexity('weights', toy_supernet())({'op': 'skip', 'width': 4})
        148
    """
    if callable(measure):
        return measure
    if measure == "parameters":
        return parameter_count(supernet.model, count_all)
    if measure == "weights":
        return parameter_count(supernet.model, count_weights)
    if measure == "flops":
        if inputs is None:
            raise ConfigurationError(
                "Argument `inputs` is expected to be an example input batch for 'flops', but got None. Give one, "
                "or use the measure 'parameters'."
            )
        return flop_count(supernet, inputs)
    raise ConfigurationError(
        f"Argument `complexity` is expected to be one of {MEASURES} or a function of the sample, but got "
        f"{measure!r}. Use one of them."
    )


def find_extremes(complexity: Complexity, domain: Domain) -> Extremes:
    """Find the smallest and the largest subnet: exactly where the space allows.

    Sums over choices are solved component by component; small spaces (up to 20,000 subnets) are enumerated.
    Elsewhere, and the result says so, coordinate search runs from 20 random starts, seeded, and from the subnet of
    the candidates that are best on average over random contexts: where a measure is monotone in every choice but
    does not change with every one, as a rounded latency or that of the slowest of a few branches, no single choice
    may improve a random start. A measure that runs the network for each sample (FLOPs that are no sum over choices)
    enumerates up to 200 and starts 3 times.

    Args:
        complexity: Function from a sample to a number.
        domain: The space's choices.

    Returns:
        Both subnets, their complexities, and whether they are proven.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> supernet = toy_supernet()
        >>> extremes = find_extremes(resolve_complexity('parameters', supernet), supernet.domain)
        >>> extremes.smallest['width'], extremes.largest['width'], extremes.exact
        (4, 8, True)
    """
    if isinstance(complexity, UnitSum):
        ends = [complexity.extreme(domain, sign) for sign in (-1, 1)]
        if ends[0] is not None and ends[1] is not None:
            return _extremes(complexity, ends[0], ends[1], exact=True)
    expensive = getattr(complexity, "expensive", False)
    if domain.size() <= (_EXPENSIVE_GRID_LIMIT if expensive else _GRID_LIMIT):
        samples = list(domain.grid())
        return _extremes(complexity, min(samples, key=complexity), max(samples, key=complexity), exact=True)
    starts = _EXPENSIVE_STARTS if expensive else _STARTS
    found = [_coordinate_search(complexity, domain, sign, starts) for sign in (-1, 1)]
    return _extremes(complexity, found[0], found[1], exact=False)


def _extremes(complexity: Complexity, low: dict[str, Any], high: dict[str, Any], exact: bool) -> Extremes:
    return Extremes(low, high, float(complexity(low)), float(complexity(high)), exact)


def _coordinate_search(complexity: Complexity, domain: Domain, sign: int, starts: int) -> dict[str, Any]:
    """Improve one choice at a time until none improves, from several starts."""
    rng = np.random.default_rng(0)
    grids = {label: list(mutable.grid()) for label, mutable in domain.mutables.items()}
    found = [domain.random(rng)]
    random = (domain.random(rng) for _ in range(starts))
    for start in (_best_on_average(complexity, domain, grids, sign, 3 * starts), *random):
        found.append(_climb(complexity, domain, grids, start, sign))
    values = [sign * complexity(sample) for sample in found]
    return found[int(np.argmax(np.where(np.isnan(values), -np.inf, values)))]


def _best_on_average(
    complexity: Complexity, domain: Domain, grids: dict[str, list[Any]], sign: int, contexts: int
) -> dict[str, Any]:
    """Take each choice's candidate that is best on average, in contexts that resemble the result more and more.

    In the largest of many branches a branch shows only where all others are small: among random ones seldom, with
    those that are known already more often.
    """
    rng = np.random.default_rng(0)
    gains = {label: np.zeros(len(grid)) for label, grid in grids.items()}
    best = domain.random(rng)
    for number in range(contexts):
        context = domain.random(rng)
        kept = {label: best[label] for label in context if rng.random() < number / contexts}
        if domain.satisfies_constraints({**context, **kept}):
            context |= kept
        own = complexity(context)
        for label, grid in grids.items():
            gains[label] += sign * _effects(complexity, domain, context, own, label, grid)
        equal = {label: np.flatnonzero(gain == gain.max()) for label, gain in gains.items()}
        found = {label: grid[int(rng.choice(equal[label]))] for label, grid in grids.items()}
        if domain.satisfies_constraints(found):
            best = found
    return best


def _climb(
    complexity: Complexity, domain: Domain, grids: dict[str, list[Any]], start: dict[str, Any], sign: int
) -> dict[str, Any]:
    current, own, improved = start, complexity(start), True
    while improved:
        improved = False
        for label, grid in grids.items():
            gains = sign * _effects(complexity, domain, current, own, label, grid)
            if gains.max() > 0:
                current = {**current, label: grid[int(gains.argmax())]}
                own, improved = complexity(current), True
    return current


def _effects(
    complexity: Complexity, domain: Domain, current: Sample, own: float, label: str, grid: list[Any]
) -> np.ndarray:
    """Return how the complexity of ``current``, which is ``own``, changes with each candidate of a choice.

    A candidate that is forbidden here, or whose complexity is not known (NaN), counts as the one that is there.
    """
    effects = np.zeros(len(grid))
    for number, candidate in enumerate(grid):
        trial = {**current, label: candidate}
        if candidate == current[label] or not domain.satisfies_constraints(trial):
            continue
        if isinstance(complexity, UnitSum):
            effects[number] = complexity.change(current, label, candidate)
        else:
            effects[number] = complexity(trial) - own
    # Infinite ones stay large, but can be added up.
    return np.nan_to_num(effects, posinf=1e100, neginf=-1e100)
