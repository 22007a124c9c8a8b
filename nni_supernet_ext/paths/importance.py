"""Path importance sampling: draw candidates in proportion to their gradient norms (the PA of PA&DA)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.optim import Optimizer

from nni_supernet_ext.core.candidate_parameters import CandidateParameters
from nni_supernet_ext.core.domain import Domain, Drawer, categorical_drawer
from nni_supernet_ext.core.draw import Draw, Sample
from nni_supernet_ext.core.gradient_probe import GradientNormProbe
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.errors import ConfigurationError, TrainingDivergedError
from nni_supernet_ext.functional._vectors import FloatVector
from nni_supernet_ext.functional.importance import Schedule, importance_weight, resolve_schedule
from nni_supernet_ext.paths._importance_checks import argument_problems, plan_problems
from nni_supernet_ext.paths._importance_table import ImportanceTable
from nni_supernet_ext.paths._plain_draws import PlainDraws


class ImportancePathSampler(PlainDraws):
    """Draw one subnet a step, each choice's candidates in proportion to their average gradient norm.

    After each draw's backward pass the gradient norms of the candidates on its path are taken; they are averaged
    over the epoch and become the next epoch's distribution, ``delta * norm / sum(norms) + (1 - delta) / n`` (with
    prior weights of the choice's own in place of ``1 / n``). Candidates without weights have no gradient and keep
    the second part. A candidate that no gradient reached in a draw (its output led nowhere) was not measured in it.

    Args:
        delta: Share of the gradient norms: ``'linear'`` (default; 0 at the start, 1 at the end),
            ``'linear_down'``, a constant below 1, or a function of the progress (0 to 1).
        granularity: ``'choice'`` (default): a distribution per choice. ``'operation'``: one for all choices.
        update: ``'epoch'`` (default), or ``'step'``, which waits for the device in every step.
        accumulation: ``'mean'`` (default) over the epoch's draws, or ``'pairwise'``, the mean of the value so far
            and the new one.
        gradient: ``'raw'`` (default): each draw's own gradient. ``'clipped'``: what is left after clipping.
        norm: ``'joint'`` (default): a candidate's weights as one vector. ``'sum'``: the sum of its tensors' norms.
        reweight: Multiply a draw's loss by the ratio of its prior probability to its own, which makes the gradient
            unbiased as long as ``delta`` is below 1 (at 1, candidates without weights are not drawn at all).
            Default False.
        unseen: ``'keep'`` (default): a candidate that an epoch did not measure keeps its norm; ``'zero'``: it falls
            to the uniform share.
        labels: Choices to draw by importance. Default: all whose candidates have weights, widths, depths and
            kernel sizes included. The others are drawn uniformly.
        accept: Optional predicate on samples; samples are redrawn until it holds.

    Attributes:
        probabilities: Label -> candidate -> probability in force now, once training has started.

    Raises:
        ConfigurationError: Bad arguments or combinations, each with its remedy.
        TrainingDivergedError: No measurement of an epoch was finite.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(paths=ImportancePathSampler(delta='linear'))

    Reference:
        Lu et al., "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", CVPR 2023, Eq. 10 and section 3.4;
        reweighting: Eq. 5.

    Deviations:
        The authors' script: ``granularity='operation'``, ``accumulation='pairwise'``, ``gradient='clipped'``,
        ``norm='sum'``, ``unseen='zero'``, and a ``delta`` that is one epoch behind the one here.
    """

    draws_per_step = 1

    def __init__(
        self,
        delta: Schedule = "linear",
        granularity: Literal["choice", "operation"] = "choice",
        update: Literal["epoch", "step"] = "epoch",
        accumulation: Literal["mean", "pairwise"] = "mean",
        gradient: Literal["raw", "clipped"] = "raw",
        norm: Literal["joint", "sum"] = "joint",
        reweight: bool = False,
        unseen: Literal["keep", "zero"] = "keep",
        labels: Collection[str] | None = None,
        accept: Callable[[Sample], bool] | None = None,
    ) -> None:
        self.delta: Schedule = delta
        self.granularity = granularity
        self.update = update
        self.accumulation: Literal["mean", "pairwise"] = accumulation
        self.gradient = gradient
        self.norm = norm
        self.reweight = reweight
        self.unseen = unseen
        self.labels = labels
        self.accept = accept
        self.probabilities: dict[str, dict[Any, float]] = {}
        self._drawers: dict[str, Drawer] = {}
        self._probe = GradientNormProbe()

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse bad arguments and what leaves nothing to measure."""
        yield from argument_problems(self)
        yield from plan_problems(self, plan)

    def identity(self) -> str:
        """Describe what was measured, which the norms in a checkpoint belong to."""
        labels = "" if self.labels is None else f", labels {sorted(map(str, self.labels))}"
        return f"{self.granularity}, {self.accumulation}{labels}"

    def prepare(self, plan: Plan) -> None:
        """Find every candidate's weights once."""
        if plan.total_iterations is None and not isinstance(self.delta, int | float):
            raise ConfigurationError(
                "The trainer is expected to have a known number of iterations for ImportancePathSampler, but got "
                "none. Set `max_epochs` and use a loader with a length, set `max_steps`, or give a constant "
                "`delta`."
            )
        self._plan = plan
        self._domain: Domain = plan.supernet.domain
        self._schedule = resolve_schedule(self.delta, "delta")
        self._weights = CandidateParameters(plan.supernet)
        self._measured = self._weights.labels if self.labels is None else tuple(self.labels)
        self._table = ImportanceTable(
            {label: self._domain.candidates[label] for label in self._measured},
            {label: self._domain.prior(label) for label in self._measured},
            shared=self.granularity == "operation",
            kind=self.accumulation,
            keep=self.unseen == "keep",
        )
        self._within_step = plan.step_every == "batch"
        self._epoch: int | None = None
        self._probe = GradientNormProbe()
        self._finite, self._not_finite = 0, 0
        self._draw_from(self._table.distributions(self._table.estimate, 0.0), 0.0)

    def draws(self, rng: np.random.Generator, state: StepState) -> Sequence[Draw]:
        """Return one draw from the distributions in force."""
        if self._epoch is None:
            self._epoch = state.epoch
        if state.epoch != self._epoch or (self.update == "step" and len(self._probe)):
            self._refresh(state)
        sample = self._domain.random(rng, self.accept, self._drawers)
        return (Draw(sample, weight=self._weight(sample)),)

    def on_after_draw(self, state: StepState) -> None:
        """Measure the draw's own gradient, and remember what the next draw adds to."""
        if self.gradient != "raw":
            return
        self._measure(state.draw.sample, state.scales[state.index])
        if self._within_step and len(state.draws) > 1:
            following = state.draws[state.index + 1 :]
            self._probe.remember(self._path(following[0].sample)[0] if following else ())

    def on_after_update(self, state: StepState, optimizer: Optimizer) -> None:
        """Measure the gradient that the optimizer used, where clipping counts."""
        if self.gradient == "clipped":
            self._measure(state.pending[0].sample, state.scales[state.index], scaled=False)

    def checkpoint_state(self) -> dict[str, Any]:
        """Return norms, distributions and the epoch they belong to."""
        self._read()
        return {
            **self._table.state(),
            "epoch": self._epoch,
            "probabilities": [[label, list(p.values())] for label, p in self.probabilities.items()],
            "smoothing": self._smoothing,
        }

    def restore_state(self, state: dict[str, Any]) -> None:
        """Take over norms and distributions."""
        self._table.restore(state)
        self._epoch = state["epoch"]
        distributions = {label: np.asarray(values, dtype=np.float64) for label, values in state["probabilities"]}
        self._draw_from(distributions, state["smoothing"])

    # Measuring

    def _path(self, sample: Sample) -> tuple[list[Any], list[tuple[str, Any, list[int]]]]:
        """Return the weights a gradient reached, each once, and for each choice where its own are among them."""
        places: dict[int, int] = {}
        parameters: list[Any] = []
        owners = []
        for label in self._measured:
            own = []
            for parameter in self._weights.of(label, sample):
                if parameter.grad is None:
                    continue
                place = places.setdefault(id(parameter), len(parameters))
                if place == len(parameters):
                    parameters.append(parameter)
                own.append(place)
            if own:
                owners.append((label, sample[label], own))
        return parameters, owners

    def _measure(self, sample: Sample, factor: float, scaled: bool = True) -> None:
        if factor == 0.0:
            return
        parameters, owners = self._path(sample)
        self._probe.measure(parameters, owners, self._plan.trainer if scaled else None, factor)

    def _read(self) -> None:
        """Move all measurements off the device and average them."""
        for owners, norms in self._probe.read():
            draw = []
            for label, candidate, places in owners:
                own = norms[places]
                value = float(own.sum() if self.norm == "sum" else np.sqrt(np.square(own).sum()))
                # A gradient of zeros is one that did not arrive; one that is not finite was not applied.
                if value > 0.0 and np.isfinite(value):
                    draw.append((label, candidate, value))
                self._finite += bool(np.isfinite(value))
                self._not_finite += not np.isfinite(value)
            self._table.add(draw)

    # Distributions

    def _refresh(self, state: StepState) -> None:
        """Make new distributions from the measurements, equal on all ranks."""
        self._read()
        if self._not_finite and not self._finite:
            raise TrainingDivergedError(
                "The gradient norms of an epoch are expected to be finite, but got none that is. Lower the "
                "learning rate, clip gradients with `gradient_clip_val`, or check the data."
            )
        norms = self._synchronised(self._table.current())
        if state.epoch != self._epoch:
            self._table.close(norms)
            self._epoch, self._finite, self._not_finite = state.epoch, 0, 0
        smoothing = self._schedule(state.iteration / (state.total_iterations or max(state.iteration, 1)))
        self._draw_from(self._table.distributions(norms, smoothing), smoothing)

    def _draw_from(self, distributions: dict[str, FloatVector], smoothing: float) -> None:
        self._smoothing = smoothing
        candidates = self._table.candidates
        self.probabilities = {
            label: dict(zip(candidates[label], values.tolist(), strict=True))
            for label, values in distributions.items()
        }
        # Without a share of the norms the prior itself draws, with the very random numbers it would use anyway.
        self._drawers = {
            label: categorical_drawer(candidates[label], values.tolist())
            for label, values in distributions.items()
            if smoothing > 0.0
        }

    def _weight(self, sample: Sample) -> float:
        if not self.reweight or not self._drawers:
            return 1.0
        chosen = [self.probabilities[label][sample[label]] for label in self._measured]
        prior = [
            self._table.priors[label][self._table.candidates[label].index(sample[label])]
            for label in self._measured
        ]
        return importance_weight(chosen, prior)

    def _synchronised(self, norms: FloatVector) -> FloatVector:
        """Average over ranks: their gradients are equal already, but equal draws must not rest on rounding."""
        strategy = self._plan.trainer.strategy
        if self._plan.trainer.world_size == 1:
            return norms
        shared = torch.from_numpy(norms).to(strategy.root_device)
        return strategy.reduce(shared, reduce_op="mean").cpu().numpy()
