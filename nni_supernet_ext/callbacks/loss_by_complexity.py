"""Training loss of small and of large subnets, epoch by epoch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nni_supernet_ext._integers import integer_problems
from nni_supernet_ext.callbacks._epoch_summary import EpochSummary
from nni_supernet_ext.core.complexity import MEASURES, Complexity, resolve_complexity
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.errors import CheckpointError

_MOST_KNOWN = 100_000
_SEED_OFFSET = 104_729
"""Keeps the subnets that set the bins apart from the training's draws of the same seed."""


class LossByComplexity(EpochSummary):
    """Log the mean training loss of each epoch's draws, apart for each range of complexity.

    The ranges hold equal shares of the space's subnets. Losses are summed on the device and read once an epoch, so
    no step waits for an accelerator. Logged as ``train_loss_range_<number>``, from the smallest subnets up. It
    changes nothing.

    Args:
        complexity: ``'parameters'`` (default), ``'weights'``, ``'flops'``, or a function from a sample to a number.
        n_ranges: Number of ranges; spaces with few different complexities get fewer. Default 5.
        n_prior: Random subnets that set the ranges. Default 2000.

    Attributes:
        edges: Complexities between the ranges, ascending, once training has begun.
        history: For each finished epoch the mean loss of each range, smallest subnets first; NaN without a draw.
        counts: For each finished epoch the number of draws of each range.

    Raises:
        ConfigurationError: An unknown complexity, or a number that is no positive integer.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> losses = LossByComplexity(n_ranges=4)
        >>> strategy = SupernetStrategy(callbacks=[losses])
        >>> losses.history  # four numbers per epoch after training; draw them with plots.plot_loss_by_complexity
        []

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025: training
        losses of subnets of different complexity.

    Deviations:
        The ranges and the mean over an epoch's draws are ours.
    """

    def __init__(self, complexity: str | Complexity = "parameters", n_ranges: int = 5, n_prior: int = 2000) -> None:
        self.complexity = complexity
        self.n_ranges = n_ranges
        self.n_prior = n_prior
        self.edges: list[float] = []
        self.history: list[list[float]] = []
        self.counts: list[list[int]] = []
        self._sums: Tensor | None = None
        self._now: list[int] = []

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse an unknown complexity and numbers that are no positive integers."""
        if not callable(self.complexity) and self.complexity not in MEASURES:
            yield (
                f"Argument `complexity` is expected to be one of {MEASURES} or a function of the sample, but got "
                f"{self.complexity!r}. Use 'parameters', the default."
            )
        yield from integer_problems("Use 5, the default.", n_ranges=self.n_ranges)
        yield from integer_problems("Use 2000, the default.", n_prior=self.n_prior)

    def prepare(self, plan: Plan) -> None:
        """Set the ranges from random subnets; no draw of the training is used up."""
        self.history, self.counts, self._sums = [], [], None
        inputs = plan.example_inputs() if self.complexity == "flops" else None
        self._measure = resolve_complexity(self.complexity, plan.supernet, inputs)
        rng = np.random.default_rng(plan.seed + _SEED_OFFSET)
        costs = [float(self._measure(plan.supernet.domain.random(rng))) for _ in range(self.n_prior)]
        inner = np.linspace(0, 1, self.n_ranges + 1)[1:-1]
        # A range without any subnet says nothing: equal edges are one, and none lies at the very bottom.
        edges = np.unique(np.quantile(costs, inner, method="higher"))
        self.edges = edges[edges > min(costs)].tolist()
        self._now = [0] * (len(self.edges) + 1)
        self._known: dict[Any, int] = {}

    def on_after_draw(self, state: StepState) -> None:
        """Add the draw's loss to its range, on the device."""
        if state.loss is None:
            return
        place = self._range_of(state.draw.sample)
        if self._sums is None:
            self._sums = self._zeros(state.loss)
        self._sums = self._sums.to(state.loss.device)
        self._sums[place].add_(state.loss)
        self._now[place] += 1

    def checkpoint_state(self) -> dict[str, Any]:
        """Return the means so far, and the sums of an epoch that is under way."""
        return {
            "history": [list(means) for means in self.history],
            "counts": [list(counts) for counts in self.counts],
            "sums": None if self._sums is None else self._sums.tolist(),
            "now": list(self._now),
        }

    def restore_state(self, state: dict[str, Any]) -> None:
        """Take over what was measured so far."""
        self.history = [list(means) for means in state["history"]]
        self.counts = [list(counts) for counts in state["counts"]]
        self._sums = None if state["sums"] is None else torch.tensor(state["sums"], dtype=torch.float64)
        if len(state["now"]) != len(self._now):
            raise CheckpointError(
                f"The checkpoint is expected to have {len(self._now)} ranges of complexity, as LossByComplexity "
                f"has now, but got {len(state['now'])}. Use the saved `n_ranges` and `complexity`, or leave the "
                "callback out."
            )
        self._now = list(state["now"])

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Forget the complexities of the subnets drawn."""
        self._known = {}

    def _summary(self, pl_module: Any) -> dict[str, float]:
        """Read the sums and start anew; a range without a draw has no mean."""
        if self._sums is None:
            return {}
        sums = self._sums.tolist()
        means = [total / count if count else float("nan") for total, count in zip(sums, self._now, strict=True)]
        self.history.append(means)
        self.counts.append(self._now)
        self._sums, self._now = None, [0] * len(self._now)
        return {f"train_loss_range_{number}": mean for number, mean in enumerate(means) if mean == mean}

    def _range_of(self, sample: Sample) -> int:
        key = tuple(map(repr, sample.values()))
        place = self._known.get(key)
        if place is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            place = self._known[key] = bisect_right(self.edges, float(self._measure(sample)))
        return place

    def _zeros(self, loss: Tensor) -> Tensor:
        # Apple's accelerator has no double precision.
        dtype = torch.float32 if loss.device.type == "mps" else torch.float64
        return torch.zeros(len(self._now), dtype=dtype, device=loss.device)
