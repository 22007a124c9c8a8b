"""Variance of the supernet's gradients, per epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from nni_supernet_ext._integers import integer_problems
from nni_supernet_ext.callbacks._arrivals import GradientArrivals
from nni_supernet_ext.callbacks._epoch_summary import EpochSummary
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.functional.gradient_moments import GradientMoments


class GradientVariance(EpochSummary):
    """Log how much the gradient of a weight varies over an epoch's optimizer steps.

    For each weight, the variance over the steps whose subnets reached it; then the mean over all weights that at
    least two steps reached. Gradients are those of an optimizer step, unscaled and not yet clipped. One running
    mean of the size of the weights is kept, and no gradients. The epoch's value is logged as
    ``gradient_variance``, from where it reaches loggers and NNI with the other metrics. It changes nothing.

    Args:
        every: Measure every ``every``-th optimizer step only. Default 1.

    Attributes:
        history: Value of each finished epoch; NaN, which is not logged, where no weight was measured twice.

    Raises:
        ConfigurationError: ``every`` is not a positive integer.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> variance = GradientVariance()
        >>> strategy = SupernetStrategy(callbacks=[variance])
        >>> variance.history  # a number per epoch after training
        []

    Reference:
        Lu et al., "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", CVPR 2023, appendix A, Eq. 14 (a
        weight) and 15 (the supernet).

    Deviations:
        The mean over weights counts each element once.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.history: list[float] = []
        self._moments = GradientMoments()
        self._steps = 0
        self._arrivals: GradientArrivals | None = None

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse an interval that is no positive integer."""
        yield from integer_problems("Use 1 to measure every step.", every=self.every)

    def prepare(self, plan: Plan) -> None:
        """Start without any measurement."""
        scaled = getattr(plan.trainer.precision_plugin, "scaler", None) is not None
        self.history, self._moments, self._steps = [], GradientMoments(skip_infinite=scaled), 0
        self._arrivals = None if plan.set_to_none else GradientArrivals()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to watch the weights, where their gradients alone do not tell which a step reaches."""
        self._watch(trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Watch also those that were frozen until now."""
        self._watch(trainer)

    def on_draws(self, state: StepState) -> None:
        """Begin to note which weights this step reaches."""
        if self._arrivals is not None:
            self._arrivals.forget()

    def on_before_update(self, state: StepState, optimizer: Optimizer) -> None:
        """Take in the gradients of this step."""
        self._steps += 1
        if self._steps % self.every == 0:
            reached = [p for p in _trained(optimizer) if self._is_reached(p)]
            self._moments.add(reached, [p.grad for p in reached])
        if self._arrivals is not None:
            self._arrivals.forget()

    def checkpoint_state(self) -> dict[str, Any]:
        """Return the values so far; a checkpoint within an epoch starts that epoch's measurement anew."""
        return {"history": list(self.history), "steps": self._steps}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Take over the values so far."""
        self.history, self._steps = list(state["history"]), state["steps"]

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Free the running means."""
        self._moments = GradientMoments(self._moments.skip_infinite)

    def finish(self) -> None:
        """Let go of the run and of its weights."""
        if self._arrivals is not None:
            self._arrivals.close()
        self._arrivals = None

    def _watch(self, trainer: Any) -> None:
        if self._arrivals is not None:
            for optimizer in trainer.optimizers:
                self._arrivals.watch(_trained(optimizer))

    def _is_reached(self, parameter: Tensor) -> bool:
        return parameter.grad is not None and (self._arrivals is None or parameter in self._arrivals)

    def _summary(self, pl_module: Any) -> dict[str, float]:
        value = self._value()
        self._moments.reset()
        self.history.append(value)
        return {} if math.isnan(value) else {"gradient_variance": value}

    def _value(self) -> float:
        rows = zip(self._moments.variances(), self._moments.sizes(), self._moments.counts(), strict=True)
        repeated = [(variance, size) for variance, size, count in rows if count > 1]
        return sum(v for v, _ in repeated) / sum(n for _, n in repeated) if repeated else math.nan


def _trained(optimizer: Optimizer) -> Iterable[Any]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])
