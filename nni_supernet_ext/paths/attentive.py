"""Attentive sampling: train what will be on the Pareto front, or what is farthest from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from nni_supernet_ext._integers import integer_problems
from nni_supernet_ext.core.complexity import Complexity, resolve_complexity
from nni_supernet_ext.core.draw import Draw, Sample
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.redirected_log import muted_log
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.functional.batch_norm import BatchNormRecalibrator
from nni_supernet_ext.paths._cost_bins import CostBins
from nni_supernet_ext.paths._plain_draws import PlainDraws

_PICKS = ("best", "worst")
_PRIORS = ("empirical", "uniform")
_SEED_OFFSET = 104_729
"""Keeps the subnets that estimate the distribution apart from the training's draws of the same seed."""


class AttentivePathSampler(PlainDraws):
    """Draw a cost, then several subnets of about that cost, and train the best or the worst of them.

    Costs are split into bins. A step draws a bin, draws ``n_candidates`` subnets in it, and picks one: by the
    loss on the step's batch (forward passes with the training's weights and the batch's BN statistics, no
    gradient), or by a predictor, which costs nothing. As the base of a sandwich it is AttentiveNAS.

    Args:
        pick: ``'best'`` (best-up, default) or ``'worst'`` (worst-up).
        n_candidates: Subnets to pick from. Default 3; 50 is common with a predictor. 1 picks nothing.
        complexity: The cost: ``'parameters'`` (default), ``'weights'``, ``'flops'`` or a function
            ``sample -> number``.
        predictor: Function from a sample to its predicted quality, higher is better; what is not finite is not
            picked. Default: the loss on the current batch.
        n_bins: Number of equal steps between the cheapest and the dearest subnet seen. Default 20; 1 draws
            without a target.
        prior: ``'empirical'`` (default): a bin is drawn as often as uniform subnets fall into it;
            ``'uniform'``: all bins that hold a subnet alike.
        n_prior: Subnets drawn before training to estimate the distribution. Default 2,000.

    Attributes:
        bins: The estimated distribution of costs; known once training has started.

    Raises:
        ConfigurationError: Bad arguments.

    Example:
        >>> from nni_supernet_ext.paths import SandwichSampler
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(paths=SandwichSampler(AttentivePathSampler('best', n_candidates=3)))

    Reference:
        Wang et al., "AttentiveNAS: Improving Neural Architecture Search via Attentive Sampling", CVPR 2021,
        section 4: Algorithm 1 (training), section 4.1 (best-up, worst-up), section 4.2 (sampling by cost).

    Deviations:
        The bins' width is relative (a number of bins), not a number of FLOPs, so that it fits any cost.
    """

    draws_per_step = 1

    def __init__(
        self,
        pick: str = "best",
        n_candidates: int = 3,
        complexity: str | Complexity = "parameters",
        predictor: Callable[[Sample], float] | None = None,
        n_bins: int = 20,
        prior: str = "empirical",
        n_prior: int = 2000,
    ) -> None:
        self.pick = pick
        self.n_candidates = n_candidates
        self.complexity = complexity
        self.predictor = predictor
        self.n_bins = n_bins
        self.prior = prior
        self.n_prior = n_prior
        self.bins: CostBins | None = None
        self._plan: Plan | None = None
        self._batch_norm: BatchNormRecalibrator | None = None

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse bad arguments."""
        for name, value, choices in (("pick", self.pick, _PICKS), ("prior", self.prior, _PRIORS)):
            if value not in choices:
                yield (
                    f"Argument `{name}` is expected to be one of {choices}, but got {value!r}. Use {choices[0]!r}."
                )
        counts = {name: getattr(self, name) for name in ("n_candidates", "n_bins", "n_prior")}
        yield from integer_problems("Use the default.", **counts)
        if self.predictor is not None and not callable(self.predictor):
            yield (
                f"Argument `predictor` is expected to be a function of the sample or None, but got "
                f"{self.predictor!r}. Use None to pick by the loss on the current batch."
            )

    def prepare(self, plan: Plan) -> None:
        """Estimate how costs are distributed over the space."""
        self._plan = plan
        self._batch_norm = BatchNormRecalibrator(plan.supernet.model)
        if self.n_bins > 1:
            inputs = plan.example_inputs() if self.complexity == "flops" else None
            measure = resolve_complexity(self.complexity, plan.supernet, inputs)
            rng = np.random.default_rng(plan.seed + _SEED_OFFSET)
            samples = [plan.supernet.domain.random(rng) for _ in range(self.n_prior)]
            self.bins = CostBins(samples, measure, self.n_bins)

    def draws(self, rng: np.random.Generator, state: StepState) -> Sequence[Draw]:
        """Return the picked subnet."""
        candidates = self._candidates(rng)
        return (Draw(candidates[self._picked(candidates, state)]),)

    def _candidates(self, rng: np.random.Generator) -> list[dict[str, Any]]:
        assert self._plan is not None
        domain = self._plan.supernet.domain
        if self.bins is None:
            return [domain.random(rng) for _ in range(self.n_candidates)]
        target = self.bins.draw_bin(rng, uniform=self.prior == "uniform")
        return [self.bins.draw(rng, target, domain) for _ in range(self.n_candidates)]

    def _picked(self, candidates: Sequence[Sample], state: StepState) -> int:
        if len(candidates) == 1:
            return 0
        if self.predictor is not None:
            badness = [-float(self.predictor(sample)) for sample in candidates]
            return self._extreme(torch.tensor(badness, dtype=torch.float64))
        return self._extreme(self._losses(candidates, state))

    def _extreme(self, badness: torch.Tensor) -> int:
        """Return the position to pick; what is not finite is neither the best nor worth training."""
        never = torch.inf if self.pick == "best" else -torch.inf
        badness = torch.where(badness.isfinite(), badness, torch.full_like(badness, never))
        return int(badness.argmin() if self.pick == "best" else badness.argmax())

    def _losses(self, candidates: Sequence[Sample], state: StepState) -> torch.Tensor:
        """Return the candidates' losses on the batch, equal on all ranks, leaving BN statistics alone."""
        plan = self._plan
        assert plan is not None and self._batch_norm is not None
        losses = []
        with torch.no_grad(), self._batch_norm.preserved(), muted_log(plan.training_module):
            for sample in candidates:
                plan.weights.activate(plan.supernet, sample)
                losses.append(state.task_loss().detach())
        gathered = torch.stack(losses).float()
        if plan.trainer.world_size > 1:
            gathered = plan.trainer.strategy.reduce(gathered, reduce_op="mean")
        return gathered
