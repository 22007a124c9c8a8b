"""Complexity-aware learning rate (CaLR)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

import numpy as np
from torch import Tensor
from torch.optim import SGD, Optimizer

from nni_supernet_ext._values import is_number
from nni_supernet_ext.core.callback import SupernetCallback
from nni_supernet_ext.core.complexity import Complexity, find_extremes, resolve_complexity
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional.complexity_lr import (
    ComplexityTransform,
    complexity_aware_lr,
    complexity_exponent,
)

_logger = logging.getLogger(__name__)


class ComplexityAwareLR(SupernetCallback):
    """Let the learning rate of small subnets fall faster than that of large ones.

    With one draw per optimizer step, the rate of that very step is ``base * (1 - t/T) ** gamma(subnet)``. With
    several draws per step, each draw's gradient is multiplied by its own ``(1 - t/T) ** gamma`` and the
    momentum runs over the weighted sum. The base rate is the optimizer's; ``t`` counts batches. The callback
    owns the learning rate: the evaluator must not configure a scheduler.

    Where the space is too large to prove its smallest and largest complexity, both are found by search; a subnet
    beyond them then has the exponent of that end, with a warning.

    Args:
        complexity: ``'weights'`` (convolution and linear weights, as the authors count; default),
            ``'parameters'``, ``'flops'``, or a function ``sample -> number``.
        gamma_max: Exponent of the smallest subnet; the largest gets ``1 / gamma_max``. Default 4, the paper's
            for NAS-Bench-201; 3 for MobileNet spaces; 1 is plain linear decay for all.
        transform: ``'log'`` (default), ``'linear'`` or ``'exp'`` of the complexity (the paper's Table E).
        bounds: Smallest and largest complexity; a subnet beyond is an error. Default: found in the space, exactly
            where it allows.
        scale_weight_decay: With several draws per step, whether weight decay shrinks with the draws' mean
            factor, as it does with one draw per step. Default True.

    Raises:
        ConfigurationError: A second owner of the learning rate, equal smallest and largest complexity,
            training without a known end, several draws per step with an optimizer other than SGD, or a subnet
            outside of ``bounds``.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(callbacks=[ComplexityAwareLR(gamma_max=4.0)])

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025,
        section 3.2; several draws: Algorithm 2 of its supplement.

    Deviations:
        Algorithm 2 puts the whole rate into the momentum and updates with rate 1. Here the constant base rate
        stays outside: the same update, and clipping and weight decay keep their usual units.
    """

    claims = frozenset({"lr"})

    def __init__(
        self,
        complexity: str | Complexity = "weights",
        gamma_max: float = 4.0,
        transform: ComplexityTransform = "log",
        bounds: tuple[float, float] | None = None,
        scale_weight_decay: bool = True,
    ) -> None:
        self.complexity = complexity
        self.gamma_max = gamma_max
        self.transform: ComplexityTransform = transform
        self.bounds = bounds
        self.scale_weight_decay = scale_weight_decay
        self._total: int = 0
        self._weighted = False
        self._proven = True
        self._warned = False
        self._exponents: dict[float, float] = {}
        self._saved: list[tuple[float | Tensor, float]] = []

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse bad arguments, and several draws per step with a gradient-normalising optimizer."""
        if not (is_number(self.gamma_max) and self.gamma_max >= 1):
            yield (
                f"Argument `gamma_max` is expected to be a number of at least 1, but got {self.gamma_max!r}. "
                "Use the paper's 4, or 1 for plain linear decay."
            )
        if plan.optimizer is not None and self._is_weighted(plan) and not isinstance(plan.optimizer, SGD):
            yield (
                "The optimizer is expected to be SGD for ComplexityAwareLR with several draws per optimizer step, "
                f"but got {type(plan.optimizer).__name__}, which divides the draws' factors out of the gradient. "
                "Use torch.optim.SGD, or `step_every='subnet'`."
            )

    def prepare(self, plan: Plan) -> None:
        """Find the range of the complexity and the length of the training."""
        if plan.total_iterations is None:
            raise ConfigurationError(
                "The trainer is expected to have a known number of iterations for ComplexityAwareLR, but got "
                "none. Set `max_epochs` and use a loader with a length, or set `max_steps`."
            )
        self._total = plan.total_iterations
        self._weighted = self._is_weighted(plan)
        inputs = plan.example_inputs() if self.complexity == "flops" else None
        self._measure = resolve_complexity(self.complexity, plan.supernet, inputs)
        if self.bounds is None:
            extremes = find_extremes(self._measure, plan.supernet.domain)
            self._low, self._high, self._proven = extremes.minimum, extremes.maximum, extremes.exact
        else:
            self._low, self._high, self._proven = *self.bounds, True
        self._exponents = {}
        self.exponent(plan.supernet.domain.random(np.random.default_rng(0)))

    def exponent(self, sample: Sample) -> float:
        """Return the exponent of a subnet; available once training has started.

        Args:
            sample: Architecture.

        Returns:
            Exponent between ``1 / gamma_max`` (largest subnet) and ``gamma_max`` (smallest).
        """
        value = self._measure(sample)
        if not self._proven:
            value = self._within(value)
        exponent = self._exponents.get(value)
        if exponent is None:
            exponent = self._exponents[value] = complexity_exponent(
                value,
                minimum=self._low,
                maximum=self._high,
                gamma_max=self.gamma_max,
                transform=self.transform,
            )
        return exponent

    def _within(self, value: float) -> float:
        """Move a complexity beyond the ends that the search found to the nearer one; NaN stays, to be refused."""
        within = min(max(value, self._low), self._high)
        if within != value and not self._warned and not math.isnan(value):
            self._warned = True
            _logger.warning(
                "A subnet has complexity %g, beyond the %g to %g that a search found in the space. It gets the "
                "exponent of that end, and so will others. Give `bounds` if you know the ends.",
                value,
                self._low,
                self._high,
            )
        return within

    def on_draws(self, state: StepState) -> None:
        """With several draws per step, put each draw's factor on its gradient."""
        if not self._weighted:
            return
        factors = [self._factor(state, draw.sample) for draw in state.draws]
        state.scales = [scale * factor for scale, factor in zip(state.scales, factors, strict=True)]
        state.gradient_scale *= sum(factors) / len(factors)

    def on_before_update(self, state: StepState, optimizer: Optimizer) -> None:
        """Set the rate of this step (one draw) or the weight decay's share (several)."""
        if self._weighted:
            decay = state.gradient_scale if self.scale_weight_decay else 1.0
            self._scale(optimizer, 1.0, decay)
        else:
            self._scale(optimizer, self._factor(state, state.pending[0].sample), 1.0)

    def on_after_update(self, state: StepState, optimizer: Optimizer) -> None:
        """Give the optimizer its base rate back, which every factor starts from."""
        for group, (rate, decay) in zip(optimizer.param_groups, self._saved, strict=True):
            _set_rate(group, rate)
            if "weight_decay" in group:
                group["weight_decay"] = decay

    def _factor(self, state: StepState, sample: Sample) -> float:
        return complexity_aware_lr(1.0, state.iteration, self._total, self.exponent(sample))

    def _scale(self, optimizer: Optimizer, rate: float, decay: float) -> None:
        self._saved = [(_rate(group), group.get("weight_decay", 0.0)) for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            _set_rate(group, group["lr"] * rate)
            if "weight_decay" in group:
                group["weight_decay"] *= decay

    @staticmethod
    def _is_weighted(plan: Plan) -> bool:
        return plan.step_every == "batch" and plan.paths.draws_per_step != 1


def _rate(group: dict[str, object]) -> float | Tensor:
    rate = group["lr"]
    return rate.clone() if isinstance(rate, Tensor) else rate  # type: ignore[return-value]


def _set_rate(group: dict[str, object], rate: float | Tensor) -> None:
    current = group["lr"]
    if isinstance(current, Tensor):
        # A captured optimizer holds on to this very tensor.
        current.fill_(rate) if not isinstance(rate, Tensor) else current.copy_(rate)
    else:
        group["lr"] = rate
