"""Strictly fair path sampling (FairNAS)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from nni.mutable import Categorical, CategoricalMultiple

from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Draw
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.errors import ConstraintError
from nni_supernet_ext.paths._plain_draws import PlainDraws

_PATIENCE = 1000
Deck = Callable[[np.random.Generator, int], list[Any]]


class FairPathSampler(PlainDraws):
    """Train every candidate of every choice equally often in each step (FairNAS, strict fairness).

    A step draws one subnet per candidate, each choice going through an independent random permutation of its
    candidates. Gradients of all draws are summed and applied in one update; each draw's backward pass runs
    before the next draw's forward pass, so the memory is that of a single draw.

    Choices with different numbers of candidates follow the rule of the least common cover: a step makes as many
    draws as the least common multiple of the numbers, and a choice with fewer candidates goes through several
    permutations one after the other. With 2 and 3 candidates, a step has 6 draws, in which each candidate of
    the first choice is trained exactly 3 times and each of the second exactly twice.

    Args:
        fixed: Label of a choice to hold fixed within each step: its candidate is drawn uniformly, once per
            step, and shared by all draws. Strict fairness holds for the other choices. Needed by momentum
            separation with one optimizer step per batch. Default None: every choice is permuted.
        max_draws: Most draws per step to accept. Numbers of candidates without common factors multiply up (6
            and 7 need 42 draws); a larger cover is refused rather than shortened. Default 64.

    Attributes:
        draws_per_step: The least common cover, once the strategy has seen the space.

    Raises:
        ConfigurationError: Unknown or single-candidate ``fixed``, a cover above ``max_draws``, a choice with
            prior weights or without finitely many candidates.
        ConstraintError: No step satisfies a constraint that is written into the space.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(paths=FairPathSampler())
        >>> strategy = SupernetStrategy(paths=FairPathSampler(fixed='op'))  # for MomentumSeparation(by='op')

    Reference:
        Chu et al., "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search", ICCV
        2021, strict fairness and Algorithm 1. With ``fixed``: Jeon et al., "Subnet-Aware Dynamic Supernet
        Training for Neural Architecture Search", CVPR 2025, Algorithm 2 of the supplement.

    Deviations:
        The paper's choices all have the same number of candidates; the least common cover is the extension
        that stays exact. An input choice of k among n uses windows of k in a permutation of n, so each input
        is trained equally often over ``n / gcd(n, k)`` draws. In a space with constraints of its own a step's
        permutations are redrawn together until all draws satisfy them.
    """

    draws_per_step: int | None = None

    def __init__(self, fixed: str | None = None, max_draws: int = 64) -> None:
        self.fixed = fixed
        self.max_draws = max_draws
        self.shared_choices = () if fixed is None else (fixed,)
        self._domain: Domain | None = None
        self._decks: dict[str, Deck] = {}

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse choices that cannot be trained fairly, and covers that are too long."""
        domain = plan.supernet.domain
        unfair = list(_unfair_choices(domain))
        yield from unfair
        yield from self._fixed_problems(domain)
        bounded = isinstance(self.max_draws, Real) and self.max_draws >= 1
        if not bounded:
            yield (
                f"Argument `max_draws` is expected to be a number of at least 1, but got {self.max_draws!r}. Use "
                "64, the default."
            )
        if unfair:
            return
        # Other components ask for the number of draws while the plan is checked.
        self.draws_per_step = self._cover(domain)
        if bounded and self.draws_per_step > self.max_draws:
            periods = {label: _period(domain.mutables[label]) for label in self._permuted(domain)}
            yield (
                f"Argument `max_draws` is expected to admit the least common cover of the choices, but got "
                f"{self.max_draws} below {self.draws_per_step}, the least common multiple of {periods}. Raise "
                "it, give the choices numbers of candidates with common factors, or use UniformPathSampler."
            )

    def _fixed_problems(self, domain: Domain) -> Iterable[str]:
        if self.fixed is None:
            return
        if not isinstance(self.fixed, str) or self.fixed not in domain.candidates:
            yield (
                f"Argument `fixed` is expected to be the label of a choice or None, but got {self.fixed!r}. Use "
                f"one of {list(domain.candidates)}."
            )
        elif len(domain.candidates[self.fixed]) < 2:
            yield (
                f"Argument `fixed` is expected to name a choice with at least two candidates, but got "
                f"{self.fixed!r} with {domain.candidates[self.fixed]}. Use another choice, or None."
            )

    def prepare(self, plan: Plan) -> None:
        """Make one shuffled deck of candidates per choice."""
        self._domain = plan.supernet.domain
        self.draws_per_step = self._cover(self._domain)
        self._decks = {
            label: _held(mutable) if label == self.fixed else _shuffled(mutable)
            for label, mutable in self._domain.mutables.items()
        }

    def draws(self, rng: np.random.Generator, state: StepState) -> Sequence[Draw]:
        """Return one draw per candidate, each candidate equally often."""
        domain, count = self._domain, self.draws_per_step
        assert domain is not None and count is not None
        for _ in range(_PATIENCE):
            columns = [deck(rng, count) for deck in self._decks.values()]
            samples = [dict(zip(self._decks, values, strict=True)) for values in zip(*columns, strict=True)]
            if all(domain.satisfies_constraints(sample) for sample in samples):
                return tuple(Draw(sample) for sample in samples)
        raise ConstraintError(
            f"The space's constraints are expected to admit a strictly fair step, but got {_PATIENCE} steps with "
            "a draw that violates them. Loosen them, or use UniformPathSampler."
        )

    def _permuted(self, domain: Domain) -> list[str]:
        return [label for label in domain.labels if label != self.fixed]

    def _cover(self, domain: Domain) -> int:
        return math.lcm(*(_period(domain.mutables[label]) for label in self._permuted(domain)))


def _unfair_choices(domain: Domain) -> Iterable[str]:
    for label, mutable in domain.mutables.items():
        several = isinstance(mutable, CategoricalMultiple) and mutable.n_chosen is not None
        if not isinstance(mutable, Categorical) and not several:
            yield (
                f"Every choice is expected to have finitely many candidates and a fixed number of chosen ones for "
                f"FairPathSampler, but got {label!r}: {mutable!r}. Use UniformPathSampler."
            )
        elif max(mutable.weights) - min(mutable.weights) > 1e-9:
            yield (
                f"Every choice is expected to have equal prior weights for FairPathSampler, but got {label!r} with "
                f"{list(mutable.weights)}. Remove the weights, or use UniformPathSampler."
            )


def _sizes(mutable: Any) -> tuple[list[Any], int]:
    """Return the candidates of a choice and how many of them a sample takes."""
    chosen = int(mutable.n_chosen) if isinstance(mutable, CategoricalMultiple) else 1
    return list(mutable.values), chosen


def _period(mutable: Any) -> int:
    """Return the fewest draws in which each candidate can occur equally often."""
    values, chosen = _sizes(mutable)
    return len(values) // math.gcd(len(values), chosen)


def _held(mutable: Any) -> Deck:
    values = list(mutable.values)
    return lambda rng, count: [values[int(rng.integers(len(values)))]] * count


def _shuffled(mutable: Any) -> Deck:
    """Return a function that deals values of one choice, period by period in a fresh random order."""
    values, chosen = _sizes(mutable)
    n, period = len(values), _period(mutable)
    several = isinstance(mutable, CategoricalMultiple)

    def deal(rng: np.random.Generator, count: int) -> list[Any]:
        dealt: list[Any] = []
        while len(dealt) < count:
            order = rng.permutation(n)
            windows = ([int(order[(k * chosen + i) % n]) for i in range(chosen)] for k in range(period))
            for window in windows:
                dealt.append([values[i] for i in sorted(window)] if several else values[window[0]])
        return dealt

    return deal
