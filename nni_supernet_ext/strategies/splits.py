"""Rules that split a supernet on one choice."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nni_supernet_ext._integers import integer_problems, is_integer
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.errors import ConfigurationError


@dataclass(frozen=True)
class SplitContext:
    """What a rule may look at.

    Attributes:
        supernet: The supernet to split, with its domain restricted to what is split.
        rng: Source of randomness, seeded by the run's seed and the place in the recursion.
        reserved: Labels that must not be split on, for example the clusters of momentum separation.
        training_module: The evaluator's Lightning module.
        train_loader: The evaluator's training loader.
        seed: Seed of the run.

    Raises:
        ConfigurationError: :meth:`eligible` finds no choice that can be split.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> context = SplitContext(toy_supernet(), np.random.default_rng(0), reserved=['width'])
        >>> context.eligible()
        ['op']
    """

    supernet: Supernet
    rng: np.random.Generator
    reserved: Collection[str] = ()
    training_module: Any = None
    train_loader: Any = None
    seed: int = 0

    def eligible(self, at_least: int = 2) -> list[str]:
        """Return the labels of the choices that can be split into ``at_least`` groups.

        Raises:
            ConfigurationError: There is none.
        """
        candidates = self.supernet.domain.candidates
        found = [k for k, values in candidates.items() if len(values) >= at_least and k not in self.reserved]
        if not found:
            raise ConfigurationError(
                f"The space is expected to have a choice with at least {at_least} candidates to split on, but got "
                f"{ {label: len(values) for label, values in candidates.items()} } with {list(self.reserved)} "
                "reserved. Split into fewer parts, or fewer times."
            )
        return found


@dataclass(frozen=True)
class Division:
    """The outcome of a rule.

    Attributes:
        label: The choice split on.
        groups: Its candidates, one group per sub-supernet.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> context = SplitContext(toy_supernet(), np.random.default_rng(0))
        >>> ChoiceSplit('op', groups=[['conv', 'linear'], ['skip']]).divide(context)
        Division(label='op', groups=(('conv', 'linear'), ('skip',)))
    """

    label: str
    groups: tuple[tuple[Any, ...], ...]


class SplitRule:
    """Base of the rules that split a supernet; derive from it for a rule of your own.

    Attributes:
        needs_warmup: Whether the rule looks at trained weights.

    Example:
        >>> class FirstAlone(SplitRule):
        ...     def divide(self, context):
        ...         label = context.eligible()[0]
        ...         first, *rest = context.supernet.domain.candidates[label]
        ...         return Division(label, ((first,), tuple(rest)))
    """

    needs_warmup = False

    def problems(self, domain: Domain) -> Iterable[str]:
        """Say what is wrong with the rule's arguments for a space, each with its remedy."""
        return ()

    def split_labels(self) -> tuple[str, ...]:
        """Return the labels that the rule is known to split on before training."""
        return ()

    def divide(self, context: SplitContext) -> Division:
        """Decide the choice and the groups of its candidates."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `divide`.")


class ChoiceSplit(SplitRule):
    """Split on a given or random choice, into given groups, random groups or single candidates.

    Args:
        choice: Label of the choice. Default: a random one, by the run's seed.
        parts: Number of sub-supernets K; the candidates are dealt to them at random, as evenly as possible.
            Default: one per candidate.
        groups: The groups themselves, in place of ``parts``. Candidates that are in none are not trained.

    Raises:
        ConfigurationError: Where it divides: no choice with enough candidates is left, or ``choice`` has lost
            some of those that ``parts`` or ``groups`` need to an earlier level. What can be known before training
            is raised with all other problems of the run.

    Example:
        >>> ChoiceSplit('op').split_labels()
        ('op',)

    Reference:
        Zhao et al., "Few-shot Neural Architecture Search", ICML 2021, the section on splitting the supernet: one
        sub-supernet per candidate of one choice; two choices make the second level.
    """

    def __init__(
        self,
        choice: str | None = None,
        parts: int | None = None,
        groups: Sequence[Sequence[Any]] | None = None,
    ) -> None:
        self.choice = choice
        self.parts = parts
        given: Any = groups
        self.groups: Any = tuple(map(tuple, given)) if _are_groups(given) else given

    def split_labels(self) -> tuple[str, ...]:
        """Return the given choice."""
        return () if self.choice is None else (self.choice,)

    def problems(self, domain: Domain) -> Iterable[str]:
        """Refuse unknown choices and impossible groups."""
        if self.parts is not None and self.groups is not None:
            yield (
                "Arguments `parts` and `groups` are expected to exclude each other, but got both. Remove `parts`."
            )
        yield from integer_problems("Use None for one sub-supernet per candidate.", optional=True, parts=self.parts)
        if self.choice is None:
            yield from self._problems_of_random_choice(domain)
        elif self.choice not in domain.candidates:
            yield (
                f"Argument `choice` is expected to be the label of a choice, but got {self.choice!r}. Use one of "
                f"{list(domain.candidates)}."
            )
        else:
            yield from self._candidate_problems(domain.candidates[self.choice])

    def _problems_of_random_choice(self, domain: Domain) -> Iterable[str]:
        most = max((len(values) for values in domain.candidates.values()), default=0)
        if self.groups is not None:
            yield (
                "Argument `choice` is expected to be given together with `groups`, but got None. Name the choice "
                "whose candidates the groups hold."
            )
        elif most < 2:
            yield (
                "The space is expected to have a choice with at least two candidates to split on, but got none. "
                "Use SupernetStrategy."
            )
        elif is_integer(self.parts) and self.parts > most:
            yield (
                f"Argument `parts` is expected to be at most the number of candidates of a choice, but got "
                f"{self.parts}, and the largest choice has {most}. Lower it, or split recursively."
            )

    def _candidate_problems(self, candidates: list[Any]) -> Iterable[str]:
        if len(candidates) < 2:
            yield (
                f"Argument `choice` is expected to name a choice with at least two candidates, but got "
                f"{self.choice!r} with {candidates}. Use another choice."
            )
        elif is_integer(self.parts) and self.parts > len(candidates):
            yield (
                f"Argument `parts` is expected to be at most the number of candidates of {self.choice!r}, "
                f"{len(candidates)}, but got {self.parts}. Lower it, or split recursively."
            )
        if self.groups is None:
            return
        if not isinstance(self.groups, tuple):
            yield (
                f"Argument `groups` is expected to hold lists of candidates of {self.choice!r}, but got "
                f"{self.groups!r}. Put every group into a list: groups=[[...], [...]]."
            )
            return
        named = [value for group in self.groups for value in group]
        wrong = [value for value in named if value not in candidates or named.count(value) > 1]
        if wrong or not all(self.groups) or not self.groups:
            yield (
                f"Argument `groups` is expected to hold each candidate of {self.choice!r} at most once and no "
                f"empty group, but got {self.groups} for {candidates}. Correct it."
            )

    def divide(self, context: SplitContext) -> Division:
        """Return the groups, drawing what was not given."""
        if self.choice is None:
            labels = context.eligible(max(2, self.parts or 2))
            label = labels[int(context.rng.integers(len(labels)))]
        else:
            label = self.choice
        candidates = context.supernet.domain.candidates[label]
        if self.choice is not None:
            # Fewer than in the whole space where an earlier level has split the same choice.
            problems = list(self._candidate_problems(candidates))
            if problems:
                raise ConfigurationError(problems)
        if self.groups is not None:
            return Division(label, self.groups)
        if self.parts is None or self.parts == len(candidates):
            return Division(label, tuple((value,) for value in candidates))
        order = context.rng.permutation(len(candidates))
        dealt = [sorted(int(i) for i in share) for share in np.array_split(order, self.parts)]
        return Division(label, tuple(tuple(candidates[i] for i in share) for share in sorted(dealt)))


def _are_groups(groups: Any) -> bool:
    """Tell whether an argument is a sequence of sequences, of which a text is none."""
    return all(
        isinstance(one, Iterable) and not isinstance(one, str)
        for one in (groups, *(groups if isinstance(groups, Iterable) else ()))
    )
