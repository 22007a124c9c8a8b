"""Path sampling in proportion to the complexity of the subnet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real

import numpy as np

from nni_supernet_ext.core.complexity import Complexity, find_extremes, resolve_complexity
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Draw, Sample
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.errors import ConfigurationError, ConstraintError
from nni_supernet_ext.paths._plain_draws import PlainDraws

_PATIENCE = 100_000


class ComplexityPathSampler(PlainDraws):
    """Draw one subnet a step, with a probability proportional to a power of its complexity.

    Large subnets converge more slowly; drawing them more often is the alternative to giving them a slower
    falling learning rate. The distribution over whole subnets is exact: samples of the space (uniform, or by
    the choices' own prior weights) are accepted with the probability ``(complexity / largest) ** power``.

    Args:
        complexity: ``'parameters'`` (default), ``'weights'``, ``'flops'``, or a function ``sample -> number``.
        power: Exponent of the complexity. Default 1, in proportion; 0 is uniform sampling; negative values
            prefer small subnets.

    Raises:
        ConfigurationError: A power that is not finite, or a complexity that is not positive.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(paths=ComplexityPathSampler('parameters'))

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025, Table G
        of the supplement, where it is compared with the complexity-aware learning rate.

    Deviations:
        Where the largest (with a negative power: the smallest) subnet is found by search only and a subnet
        beyond it is proposed, that subnet is accepted always.
    """

    draws_per_step = 1

    def __init__(self, complexity: str | Complexity = "parameters", power: float = 1.0) -> None:
        self.complexity = complexity
        self.power = power
        self._domain: Domain | None = None
        self._peak = 1.0

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse a power that is no number."""
        if not isinstance(self.power, Real) or not math.isfinite(self.power):
            yield (
                f"Argument `power` is expected to be a finite number, but got {self.power!r}. Use 1 for sampling "
                "in proportion, 0 for uniform sampling."
            )

    def prepare(self, plan: Plan) -> None:
        """Find the subnet that is drawn most often, which scales the acceptance."""
        self._domain = plan.supernet.domain
        if self.power == 0:
            return
        inputs = plan.example_inputs() if self.complexity == "flops" else None
        self._measure = resolve_complexity(self.complexity, plan.supernet, inputs)
        extremes = find_extremes(self._measure, self._domain)
        if not 0 < extremes.minimum <= extremes.maximum < float("inf"):
            raise ConfigurationError(
                f"Argument `complexity` is expected to be positive and finite for every subnet, but got values "
                f"from {extremes.minimum} to {extremes.maximum}. Add a part that every subnet has."
            )
        self._peak = extremes.maximum if self.power > 0 else extremes.minimum

    def draws(self, rng: np.random.Generator, state: StepState) -> Sequence[Draw]:
        """Return one draw."""
        assert self._domain is not None
        for _ in range(_PATIENCE):
            sample = self._domain.random(rng)
            if self.power == 0 or rng.random() < self._acceptance(sample):
                return (Draw(sample),)
        raise ConstraintError(
            f"Argument `power` is expected to leave enough subnets a chance, but got {self.power}, with which none "
            f"of {_PATIENCE} was accepted. Use a power nearer to 0."
        )

    def _acceptance(self, sample: Sample) -> float:
        return float((self._measure(sample) / self._peak) ** self.power)
