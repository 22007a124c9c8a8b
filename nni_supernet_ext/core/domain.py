"""The choices of a model space, without its weights: labels, candidates, random samples."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from nni.mutable import (
    Categorical,
    CategoricalMultiple,
    LabeledMutable,
    Mutable,
    MutableAnnotation,
    SampleValidationError,
)

from nni_supernet_ext.core.draw import Sample, describe_sample
from nni_supernet_ext.errors import ConstraintError, SpaceError

Drawer = Callable[[np.random.Generator], Any]
_PATIENCE = 1000


class Domain:
    """Hold the choices of a model space and draw samples from them.

    Args:
        space: NNI model space (mutated to a supernet or not).

    Attributes:
        mutables: Label -> NNI mutable that produces a value of the sample, in the space's order.
        candidates: Label -> list of candidates, for the finite choices with one chosen value.
        singles: The same, with an ``InputChoice`` of one input too, whose values are lists of one.
        options: As ``candidates``, with the choices of several values (``InputChoice``) too.

    Raises:
        SpaceError: The space has no choice at all.

    Example:
        >>> from nni_supernet_ext.testing import ToySpace
        >>> domain = Domain(ToySpace())
        >>> domain.candidates['op']
        ['conv', 'linear', 'skip']
    """

    def __init__(self, space: Mutable) -> None:
        simplified = {str(label): mutable for label, mutable in space.simplify().items()}
        self.mutables: dict[str, LabeledMutable] = {
            label: mutable for label, mutable in simplified.items() if _produces_value(mutable)
        }
        self._constraints = [m for label, m in simplified.items() if label not in self.mutables]
        if not self.mutables:
            raise SpaceError(
                "Argument `model_space` is expected to contain at least one choice, but got "
                f"{type(space).__name__} with none. Use LayerChoice, InputChoice, Repeat or a mutable layer "
                "such as MutableConv2d in it."
            )
        self._index()

    def _index(self) -> None:
        """Derive everything else from ``mutables``."""
        self.candidates: dict[str, list[Any]] = {
            label: list(mutable.values)
            for label, mutable in self.mutables.items()
            if isinstance(mutable, Categorical)
        }
        self.singles: dict[str, list[Any]] = self.candidates | {
            label: list(mutable.grid())
            for label, mutable in self.mutables.items()
            if isinstance(mutable, CategoricalMultiple) and mutable.n_chosen == 1
        }
        self.options: dict[str, list[Any]] = {
            label: list(mutable.values)
            for label, mutable in self.mutables.items()
            if isinstance(mutable, (Categorical, CategoricalMultiple))
        }
        self._drawers = [(label, _drawer(mutable)) for label, mutable in self.mutables.items()]

    @property
    def has_constraints(self) -> bool:
        """Whether the space itself forbids some samples."""
        return bool(self._constraints)

    def prior(self, label: str) -> list[float]:
        """Return the probabilities of a choice's candidates: uniform unless the space gives weights."""
        mutable = self.mutables[label]
        if not isinstance(mutable, Categorical):
            raise SpaceError(
                f"Argument `label` is expected to name a choice of one among finitely many, but got {label!r}. "
                f"Use one of {list(self.candidates)}."
            )
        weights = [float(weight) for weight in mutable.weights]
        return [weight / sum(weights) for weight in weights]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of all choices in the space's order."""
        return tuple(self.mutables)

    def random(
        self,
        rng: np.random.Generator,
        accept: Callable[[Sample], bool] | None = None,
        drawers: Mapping[str, Drawer] | None = None,
    ) -> dict[str, Any]:
        """Draw one sample, each choice by its own prior (uniform unless the space gives weights).

        Args:
            rng: Source of randomness; the only one used.
            accept: Predicate that a sample must satisfy, besides the space's own constraints.
            drawers: Label -> function that draws its candidate, for choices not drawn by their prior (see
                :func:`categorical_drawer`).

        Returns:
            Label -> chosen candidate.

        Raises:
            ConstraintError: 1,000 samples in a row violated a constraint.
        """
        own = self._drawers
        if drawers:
            own = [(label, drawers.get(label, draw)) for label, draw in own]
        for _ in range(_PATIENCE):
            sample = {label: draw(rng) for label, draw in own}
            if self._constraints and not self.satisfies_constraints(sample):
                continue
            if accept is None or accept(sample):
                return sample
        raise ConstraintError(
            f"The constraint is expected to admit a sample, but got {_PATIENCE} random samples that violate "
            "it. Loosen it, or check its unit."
        )

    def other(self, label: str, candidate: Any, rng: np.random.Generator) -> Any:
        """Draw another candidate of a choice, by the choice's prior among the others.

        Args:
            label: Label of the choice.
            candidate: The candidate not to draw.
            rng: Source of randomness; the only one used.

        Returns:
            A candidate that differs.

        Raises:
            ConstraintError: 1,000 draws in a row gave the same candidate: there is hardly another.
        """
        draw = next(draw for own, draw in self._drawers if own == label)
        for _ in range(_PATIENCE):
            drawn = draw(rng)
            if drawn != candidate:
                return drawn
        raise ConstraintError(
            f"The choice {label!r} is expected to have another candidate than {candidate!r}, but got none in "
            f"{_PATIENCE} draws. Use a choice with at least two candidates."
        )

    def restricted(self, regions: Mapping[str, Sequence[Any]]) -> Domain:
        """Return the part of the space in which some choices keep only some of their candidates.

        Args:
            regions: Label -> candidates to keep, for the choices to restrict. Prior weights are rescaled.

        Returns:
            A domain of its own with all labels; this one stays as it is.

        Raises:
            SpaceError: An unknown label or candidate, or no candidate left.

        Example:
            >>> from nni_supernet_ext.testing import ToySpace
            >>> part = Domain(ToySpace()).restricted({'op': ['conv', 'skip']})
            >>> part.candidates['op'], part.size()
            (['conv', 'skip'], 4)
        """
        part = copy.copy(self)
        part.mutables = dict(self.mutables)
        for label, kept in regions.items():
            known = self.candidates.get(label, [])
            if not kept or any(value not in known for value in kept):
                raise SpaceError(
                    f"Argument `regions` is expected to keep at least one existing candidate of each choice, but "
                    f"got {list(kept)} for {label!r} with the candidates {known}. Correct it."
                )
            prior = dict(zip(known, self.prior(label), strict=True))
            total = sum(prior[value] for value in kept)
            weights = [prior[value] / total for value in kept]
            choice = Categorical(list(kept), weights=weights, label="restricted")
            choice.label = self.mutables[label].label  # which NNI refuses as an argument where it has a scope
            part.mutables[label] = choice
        part._index()
        return part

    def satisfies_constraints(self, sample: Sample) -> bool:
        """Tell whether a sample satisfies the constraints written into the space itself."""
        return all(constraint.check_contains(dict(sample)) is None for constraint in self._constraints)

    def validate(self, sample: Sample, name: str = "sample") -> None:
        """Check that a sample names every choice and only existing candidates.

        Args:
            sample: Architecture to check.
            name: The argument's name in the error.

        Raises:
            SpaceError: A label is missing or unknown, or a value is no candidate of its choice.
        """
        unknown = [label for label in sample if label not in self.mutables]
        if unknown:
            raise SpaceError(
                f"Argument `{name}` is expected to use the labels {list(self.labels)}, but got {unknown}. "
                "Remove or correct them."
            )
        for label, mutable in self.mutables.items():
            problem: SampleValidationError | None = mutable.check_contains(dict(sample))
            if problem is not None:
                raise SpaceError(
                    f"Argument `{name}` is expected to hold a candidate for every choice, but got "
                    f"{describe_sample(sample)}: choice `{label}`: {problem.msg}. Expected {mutable!r}."
                )

    def size(self) -> float:
        """Return the number of samples of the space (infinite with continuous choices)."""
        return math.prod(_cardinality(mutable) for mutable in self.mutables.values())

    def grid(self) -> Iterator[dict[str, Any]]:
        """Iterate over all samples of a finite space that satisfy its constraints."""
        yield from self._grid({}, list(self.mutables.items()))

    def _grid(self, prefix: Mapping[str, Any], rest: list[tuple[str, LabeledMutable]]) -> Iterator[dict[str, Any]]:
        if not rest:
            sample = dict(prefix)
            if not self._constraints or self.satisfies_constraints(sample):
                yield sample
            return
        label, mutable = rest[0]
        for value in mutable.grid():
            yield from self._grid({**prefix, label: value}, rest[1:])


def _produces_value(mutable: LabeledMutable) -> bool:
    """Tell a parameter from an annotation (a constraint): only parameters appear in samples."""
    return not isinstance(mutable, MutableAnnotation)


def _drawer(mutable: LabeledMutable) -> Drawer:
    """Return a function that draws a value of one choice, avoiding NNI's slow path where possible."""
    if isinstance(mutable, Categorical):
        return categorical_drawer(list(mutable.values), list(mutable.weights))
    if isinstance(mutable, CategoricalMultiple) and mutable.n_chosen is not None and _even(mutable.weights):
        values, n_chosen = list(mutable.values), int(mutable.n_chosen)
        return lambda rng: [values[i] for i in sorted(rng.choice(len(values), n_chosen, replace=False))]
    # NNI's mutables take the legacy RandomState; seed one from our own stream.
    return lambda rng: mutable.random({}, np.random.RandomState(int(rng.integers(2**32))))


def categorical_drawer(values: list[Any], weights: list[float]) -> Drawer:
    """Return a function that draws one of ``values``; equal weights draw as a uniform choice does.

    Args:
        values: Candidates.
        weights: Their probabilities, up to a common factor.

    Returns:
        Function of a generator.

    Example:
        >>> categorical_drawer(['conv', 'skip'], [1.0, 0.0])(np.random.default_rng(0))
        'conv'
    """
    n = len(values)
    if n == 1:
        return lambda rng: values[0]
    if _even(weights):
        return lambda rng: values[int(rng.integers(n))]
    cumulative = np.cumsum(weights) / np.sum(weights)
    return lambda rng: values[min(int(np.searchsorted(cumulative, rng.random(), side="right")), n - 1)]


def _even(weights: list[float]) -> bool:
    return all(math.isclose(weight, weights[0]) for weight in weights)


def _cardinality(mutable: LabeledMutable) -> float:
    if isinstance(mutable, Categorical):
        return len(mutable.values)
    if isinstance(mutable, CategoricalMultiple):
        n = len(mutable.values)
        return 2**n if mutable.n_chosen is None else math.comb(n, int(mutable.n_chosen))
    return math.inf
