"""Uniform single-path sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Draw, Sample
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.paths._accept import accept_problems
from nni_supernet_ext.paths._plain_draws import PlainDraws


class UniformPathSampler(PlainDraws):
    """Draw one subnet a step, every choice independently and uniformly (SPOS).

    Args:
        accept: Optional predicate on samples, for example a bound on FLOPs; samples are redrawn until it
            holds.

    Raises:
        ConfigurationError: ``accept`` is no function.
        ConstraintError: 1,000 samples in a row were not accepted.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(paths=UniformPathSampler(accept=lambda s: s['width'] > 4))

    Reference:
        Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
        section 3.2.

    Deviations:
        A choice with prior weights (``LayerChoice(weights=...)``) is drawn by them; NNI's own one-shot
        strategy loses them.
    """

    draws_per_step = 1

    def __init__(self, accept: Callable[[Sample], bool] | None = None) -> None:
        self.accept = accept
        self._domain: Domain | None = None

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse a predicate that cannot be called."""
        yield from accept_problems(self.accept)

    def prepare(self, plan: Plan) -> None:
        """Take the choices of the space."""
        self._domain = plan.supernet.domain

    def draws(self, rng: np.random.Generator, state: StepState) -> Sequence[Draw]:
        """Return one uniform draw."""
        assert self._domain is not None
        return (Draw(self._domain.random(rng, self.accept)),)
