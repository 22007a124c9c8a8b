"""The architectures of one cycle of an evolutionary search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.errors import ConstraintError
from nni_supernet_ext.functional.evolution import crossover, mutate
from nni_supernet_ext.strategies.budget import Budget
from nni_supernet_ext.strategies.journal import sample_key

_PATIENCE = 200


class Breeding:
    """Make new architectures within a budget, none of them twice.

    Args:
        domain: The search space.
        budget: What an architecture may cost.
        population: Architectures per cycle.
        mutation_probability: Chance of each choice to be redrawn in a mutation.
        crossover_share: Share of a cycle's children made by crossover; the rest are mutations.
        rng: The only source of randomness.

    Reference:
        Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
        Algorithm 1.
    """

    def __init__(
        self,
        domain: Domain,
        budget: Budget,
        population: int,
        mutation_probability: float,
        crossover_share: float,
        rng: np.random.Generator,
    ) -> None:
        self.domain = domain
        self.budget = budget
        self.population = population
        self.mutation_probability = mutation_probability
        self.n_crossover = round(population * crossover_share)
        self.rng = rng
        self._seen: set[str] = set()

    def children(self, parents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Make the architectures of one cycle.

        Args:
            parents: Architectures to cross and to mutate; empty for the random first population.

        Returns:
            At most `population` architectures, fewer where no further ones were found: first those of crossover,
            then mutations, then, to fill up, random ones. Where random ones within the budget are too rare for a
            first population, it is filled with mutations of those found, or of the smallest subnets.

        Raises:
            ConstraintError: There are no parents, and no architecture within the budget was found.
        """
        children: list[dict[str, Any]] = []
        if parents:
            self._fill(children, self.n_crossover, lambda: self._crossed(parents))
            self._fill(children, self.population, lambda: self._mutated(parents))
        try:
            self._fill(children, self.population, lambda: self.budget.random(self.rng))
        except ConstraintError:
            if not parents:
                self._fill_from_the_smallest(children)
            if not parents and not children:
                raise
        return children

    def _fill_from_the_smallest(self, children: list[dict[str, Any]]) -> None:
        """Fill a first population for which random architectures are too rare."""
        smallest = self.budget.smallest()
        if smallest and not children:
            self._fill(children, 1, lambda: smallest[0])
        if children:
            self._fill(children, self.population, lambda: self._mutated(children))

    def _fill(self, children: list[dict[str, Any]], target: int, make: Callable[[], dict[str, Any]]) -> None:
        """Add new architectures up to ``target``, giving up after many that are known or over budget."""
        attempts = 0
        while len(children) < target and attempts < _PATIENCE * self.population:
            attempts += 1
            sample = make()
            key = sample_key(sample)
            if key not in self._seen and self.budget.admits(sample):
                self._seen.add(key)
                children.append(sample)

    def _picked(self, parents: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return parents[int(self.rng.integers(len(parents)))]

    def _crossed(self, parents: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return crossover(self._picked(parents), self._picked(parents), self.rng)

    def _mutated(self, parents: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return mutate(self._picked(parents), self.domain.options, self.mutation_probability, self.rng)
