"""Momentum separation (MS)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, MutableMapping
from typing import Any

import numpy as np
import torch
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingLayer
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RAdam

from nni_supernet_ext._compat.samples import plain_sample
from nni_supernet_ext.core.callback import SupernetCallback
from nni_supernet_ext.core.draw import Sample, hashable
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.errors import ConfigurationError, SpaceError

Cluster = Callable[[Sample], Hashable]
_ADAM_FAMILY = (Adam, AdamW, NAdam, RAdam)


class MomentumSeparation(SupernetCallback):
    """Keep one momentum per cluster of subnets, so that unlike subnets do not push each other.

    A subnet's cluster is the candidate it has at one choice. Each optimizer step uses and updates the momentum
    of its subnet's cluster only; there is one optimizer, whose state is exchanged as a whole by reference, so a
    step costs the same as without. With SGD that state is the momentum buffer; with the Adam family both
    moments and the step count are kept per cluster. Memory: one optimizer state per cluster.

    Args:
        by: Label of the choice whose candidates are the clusters, or a function from a sample to a cluster.
            Default: the choice that the path sampler holds fixed within a step, if any; else a random choice (by
            the run's seed) where cells repeat their choices, else the first searchable layer.

    Attributes:
        label: The label in use, once training has started; None with a function.

    Raises:
        ConfigurationError: Unknown label, a choice with a single candidate, an optimizer without momentum,
            draws of several clusters in one optimizer step, or a second owner of the momentum.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(callbacks=[MomentumSeparation(by='op')])

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025,
        section 3.3.

    Deviations:
        The Adam family is an extension: the paper trains with SGD.
    """

    claims = frozenset({"momentum"})

    def __init__(self, by: str | Cluster | None = None) -> None:
        self.by = by
        self.label: str | None = None
        self._cluster: Cluster = lambda sample: None
        self._states: dict[Hashable, Any] = {}
        self._fresh_state: Callable[[], Any] = dict
        self._active: Hashable = None
        self._started = False
        self._optimizer: Optimizer | None = None
        self._within_step = True

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse labels and optimizers that leave nothing to separate."""
        if isinstance(self.by, str):
            yield from self._label_problems(plan, self.by)
        elif self.by is not None and not callable(self.by):
            yield (
                "Argument `by` is expected to be a label, a function of the sample or None, but got "
                f"{self.by!r}. Use one of the labels {list(plan.supernet.domain.candidates)}."
            )
        elif self.by is None and _several_draws(plan) and not plan.paths.shared_choices:
            yield (
                "All draws of an optimizer step are expected to lie in one cluster, but "
                f"{type(plan.paths).__name__} holds no choice fixed within a step. Use `step_every='subnet'`, or a "
                "path sampler that does."
            )
        if plan.optimizer is not None:
            yield from _optimizer_problems(plan.optimizer)

    def _label_problems(self, plan: Plan, label: str) -> Iterable[str]:
        candidates = plan.supernet.domain.candidates
        if label not in candidates:
            yield (
                f"Argument `by` is expected to be the label of a choice, but got {label!r}. Use one of "
                f"{list(candidates)}."
            )
        elif len(candidates[label]) < 2:
            yield (
                f"Argument `by` is expected to name a choice with at least two candidates, but got {label!r} "
                f"with {candidates[label]}. Use another choice."
            )
        if _several_draws(plan) and label not in plan.paths.shared_choices:
            yield (
                f"All draws of an optimizer step are expected to lie in one cluster, but "
                f"{type(plan.paths).__name__} draws different candidates of {label!r} in a step. Use "
                "`step_every='subnet'`, or a path sampler that keeps this choice fixed within a step."
            )

    def identity(self) -> str:
        """Describe the clusters, which the momenta in a checkpoint belong to; the default ones follow the seed."""
        return "" if self.by is None else f"by={self.by!r}" if isinstance(self.by, str) else "by a function"

    def prepare(self, plan: Plan) -> None:
        """Decide the clusters."""
        self._optimizer, self._fresh_state = plan.optimizer, plan.weights.fresh_optimizer_state
        self._states, self._active, self._started = {}, None, False
        self._within_step = plan.step_every == "batch"
        if callable(self.by):
            self.label, self._cluster = None, _plain(self.by)
            return
        self.label = self.by if self.by is not None else default_label(plan)
        label = self.label
        self._cluster = lambda sample: hashable(sample[label])

    def on_draws(self, state: StepState) -> None:
        """Check that one optimizer step needs one momentum."""
        if not self._within_step or len(state.draws) == 1:
            return
        clusters = {self._cluster(draw.sample) for draw in state.draws}
        if len(clusters) > 1:
            raise ConfigurationError(
                f"All draws of an optimizer step are expected to lie in one cluster, but got {clusters}. Use "
                "`step_every='subnet'`, or a path sampler that keeps the choice fixed within a step."
            )

    def on_before_update(self, state: StepState, optimizer: Optimizer) -> None:
        """Put the momentum of the step's cluster into the optimizer."""
        cluster = self._cluster(state.pending[0].sample)
        if not self._started:
            self._started, self._active = True, cluster
        elif cluster != self._active:
            self._states[self._active] = optimizer.state
            optimizer.state = self._states.pop(cluster, None) or self._fresh_state()
            self._active = cluster

    def optimizer_states(self) -> Iterable[MutableMapping[Tensor, dict[str, Any]]]:
        """Return the momenta that are not in the optimizer now."""
        return self._states.values()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Free the momenta that are not in the optimizer."""
        self._states = {}

    def checkpoint_state(self) -> dict[str, Any]:
        """Return the momenta that are not in the optimizer now; its own checkpoint holds the active one."""
        indices = self._indices()
        return {
            "started": self._started,
            "active": self._active,
            "clusters": [
                (cluster, {indices[p]: dict(values) for p, values in state.items()})
                for cluster, state in self._states.items()
            ],
        }

    def restore_state(self, state: dict[str, Any]) -> None:
        """Rebuild the momenta, each beside its parameter."""
        parameters = {index: p for p, index in self._indices().items()}
        on_device = self._counting_on_device()
        self._started, self._active = state["started"], hashable(state["active"])
        for cluster, saved in state["clusters"]:
            restored: Any = defaultdict(dict)
            for index, values in saved.items():
                parameter = parameters[index]
                restored[parameter] = _beside(parameter, values, parameter in on_device)
            self._states[hashable(cluster)] = restored

    def _indices(self) -> dict[Tensor, int]:
        groups = self._optimizer.param_groups if self._optimizer is not None else []
        return {p: index for index, p in enumerate(p for group in groups for p in group["params"])}

    def _counting_on_device(self) -> set[Tensor]:
        """Return the parameters whose steps are counted on their own device, as fused and captured updates do."""
        groups = self._optimizer.param_groups if self._optimizer is not None else []
        return {p for g in groups if g.get("fused") or g.get("capturable") for p in g["params"]}


def _plain(by: Cluster) -> Cluster:
    """Return the function with plain results, which a checkpoint can hold."""

    def cluster(sample: Sample) -> Hashable:
        found = by(sample)
        try:
            return hashable(plain_sample({"cluster": found})["cluster"])
        except SpaceError as error:
            raise ConfigurationError(
                f"Argument `by` is expected to return numbers, texts or tuples of them, but got {found!r}. Return "
                "for example the number of the cluster."
            ) from error

    return cluster


def _optimizer_problems(optimizer: Optimizer) -> Iterable[str]:
    if isinstance(optimizer, SGD):
        if all(group["momentum"] == 0 for group in optimizer.param_groups):
            yield (
                "The optimizer is expected to have momentum for MomentumSeparation, but got SGD with momentum 0. "
                "Set `momentum` (0.9 is usual), or leave MomentumSeparation out."
            )
    elif not isinstance(optimizer, _ADAM_FAMILY):
        yield (
            "The optimizer is expected to be SGD, Adam, AdamW, NAdam or RAdam for MomentumSeparation, but got "
            f"{type(optimizer).__name__}. Use one of them."
        )


def _several_draws(plan: Plan) -> bool:
    return plan.step_every == "batch" and plan.paths.draws_per_step != 1


def default_label(plan: Plan, excluded: frozenset[str] = frozenset()) -> str:
    """Return the choice fixed within a step, a random one that several modules share, or the first layer's.

    Args:
        plan: The whole run.
        excluded: Labels not to return.

    Raises:
        ConfigurationError: No choice with at least two candidates is left.
    """
    domain = plan.supernet.domain
    layers = [m for m in plan.supernet.model.modules() if isinstance(m, PathSamplingLayer)]
    counts = {label: sum(layer.label == label for layer in layers) for label in domain.candidates}
    eligible = [label for label, values in domain.candidates.items() if len(values) > 1 and label not in excluded]
    if not eligible:
        raise ConfigurationError(
            "The space is expected to have a choice with at least two candidates for MomentumSeparation, but got "
            "none. Give a function of the sample as `by`."
        )
    held = [label for label in plan.paths.shared_choices if label in eligible]
    if held:
        return held[0]
    repeated = [label for label in eligible if counts[label] > 1]
    if repeated:
        return repeated[int(np.random.default_rng(plan.seed).integers(len(repeated)))]
    return next((label for label in eligible if counts[label]), eligible[0])


def _beside(parameter: nn.Parameter | Tensor, values: dict[str, Any], counts_too: bool) -> dict[str, Any]:
    """Move a parameter's state to its device; step counts stay on the CPU unless they belong there."""
    return {
        key: value.to(parameter.device) if torch.is_tensor(value) and (value.dim() or counts_too) else value
        for key, value in values.items()
    }
