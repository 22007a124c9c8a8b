"""A complexity as a sum of units, each depending on a few choices: fast sums and exact extremes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Sample, hashable

_ENUMERATION_LIMIT = 100_000


@dataclass
class Unit:
    """One summand: a value that depends on the choices ``labels`` only. Values are remembered."""

    labels: tuple[str, ...]
    compute: Callable[[Sample], float]
    _known: dict[Any, float] = field(default_factory=dict)

    def __call__(self, sample: Sample) -> float:
        """Return the summand for a sample."""
        key = tuple(hashable(sample[label]) for label in self.labels)
        value = self._known.get(key)
        if value is None:
            value = self._known[key] = self.compute(sample)
        return value


class UnitSum:
    """Sum units over a sample, and find the extreme samples of the sum.

    Args:
        units: The summands.

    Example:
        >>> from nni_supernet_ext.testing import ToySpace
        >>> total = UnitSum([Unit(('op',), lambda s: len(s['op'])), Unit((), lambda s: 10)])
        >>> total({'op': 'conv', 'width': 4})
        14
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        self._constant = sum(unit({}) for unit in units if not unit.labels)
        self.units = _merged([unit for unit in units if unit.labels])
        self._by_label: dict[str, list[Unit]] = {}

    def __call__(self, sample: Sample) -> float:
        """Return the sum for a sample."""
        return self._constant + sum(unit(sample) for unit in self.units)

    def change(self, sample: Sample, label: str, value: Any) -> float:
        """Return how much the sum grows when one choice of a sample changes; only its units are asked.

        Example:
            >>> total = UnitSum([Unit(('a',), lambda s: s['a']), Unit(('b',), lambda s: 10 * s['b'])])
            >>> total.change({'a': 1, 'b': 1}, 'b', 3)
            20
        """
        if not self._by_label:
            for unit in self.units:
                for name in unit.labels:
                    self._by_label.setdefault(name, []).append(unit)
        changed = {**sample, label: value}
        return sum(unit(changed) - unit(sample) for unit in self._by_label.get(label, ()))

    def components(self) -> Iterator[tuple[tuple[str, ...], list[Unit]]]:
        """Group the units that share choices, directly or through others."""
        groups: list[tuple[set[str], list[Unit]]] = []
        for unit in self.units:
            labels, members = set(unit.labels), [unit]
            for other in [group for group in groups if group[0] & labels]:
                labels |= other[0]
                members += other[1]
                groups.remove(other)
            groups.append((labels, members))
        for labels, members in groups:
            yield tuple(sorted(labels)), members

    def extreme(self, domain: Domain, sign: int) -> dict[str, Any] | None:
        """Return a sample with the exact largest (sign 1) or smallest (-1) sum, component by component.

        Args:
            domain: The space's choices.
            sign: 1 for the largest, -1 for the smallest.

        Returns:
            The sample, or None where a component is too large to enumerate or the space has constraints
            that the sample violates.
        """
        sample = {label: next(iter(mutable.grid())) for label, mutable in domain.mutables.items()}
        for labels, members in self.components():
            grids = [list(domain.mutables[label].grid()) for label in labels]
            if math.prod(len(grid) for grid in grids) > _ENUMERATION_LIMIT:
                return None
            best: tuple[float, dict[str, Any]] | None = None
            for values in _product(grids):
                part = dict(zip(labels, values, strict=True))
                total = sign * sum(unit(part) for unit in members)
                if best is None or total > best[0]:
                    best = (total, part)
            assert best is not None
            sample.update(best[1])
        return sample if domain.satisfies_constraints(sample) else None


def _merged(units: list[Unit]) -> list[Unit]:
    """Join the units that depend on the same choices: a cell repeated 15 times is summed once per candidate."""
    groups: dict[tuple[str, ...], list[Unit]] = {}
    for unit in units:
        groups.setdefault(unit.labels, []).append(unit)
    return [Unit(labels, _summing(members)) for labels, members in groups.items()]


def _summing(units: list[Unit]) -> Callable[[Sample], float]:
    return lambda sample: sum(unit(sample) for unit in units)


def _product(grids: list[list[Any]]) -> Iterator[tuple[Any, ...]]:
    if not grids:
        yield ()
        return
    for value in grids[0]:
        for rest in _product(grids[1:]):
            yield (value, *rest)
