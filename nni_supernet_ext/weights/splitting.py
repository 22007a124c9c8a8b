"""Weights that depend on what other choices have chosen, split from shared ones during training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Literal

from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingLayer
from pytorch_lightning.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor
from torch.optim import Optimizer

from nni_supernet_ext.core.component import Component
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.split_layer import ParameterPair, SplitLayer, split_layer, split_layers
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.core.structure import note_new_structure
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.weights._auto_milestones import AutoMilestones, Rule
from nni_supernet_ext.weights._dependencies import (
    Dependencies,
    dependency_problems,
    depth_problems,
    layer_problems,
    resolve_dependencies,
    scheme_problems,
)
from nni_supernet_ext.weights._milestones import Milestones, milestone_problems
from nni_supernet_ext.weights._optimizer_copies import optimizer_state_problems, split_optimizer_state
from nni_supernet_ext.weights.shared import SharedWeights


class WeightSplitting(SharedWeights):
    """Give every candidate one weight set per combination of the choices it depends on, from a milestone on.

    Until the first milestone all subnets share their weights. At the n-th milestone the n-th dependency of every
    choice begins to count: each weight set is copied, with its statistics and its optimizer state, once for each
    candidate of that dependency, so no subnet's output changes at that moment. All copies are part of the model
    from the start, unused before, so optimizer, checkpoints and parallel training see the same parameters
    throughout; the supernet itself knows which copy belongs to a sample, so the search and extraction need no
    further argument.

    Args:
        dependencies: ``'sequential'``: every layer choice depends on the one before it in the model.
            ``'nasbench201'``: edges 1-2 and 1-3 of the cell on 0-1, edge 2-3 on 0-2, then on 1-2. ``'graph'``: on
            the layer choices that feed it, read off the model by running it. Or a mapping: label -> labels it
            depends on, the first to count first.
        milestones: When: epochs (int, 0 is the start) or shares of the training (float); at most as many as the
            longest list of dependencies. Default ``(0.6,)``. ``'auto'``: decided in training for each choice on
            its own, between 30 and 80 % of it, from the gradients; only the first dependency counts.
        optimizer_state: What a copy starts with: ``'copied'`` (default), its parent's momentum and moments;
            ``'zeroed'``, none, and neither does its parent; ``'shared'``, one state for all copies of a candidate,
            as the authors' implementation has.

    Attributes:
        resolved: Label -> labels whose choice its weights depend on, once the run has been checked.
        tests: With ``'auto'``: every test made, with ``iteration``, ``label``, ``disagreement`` (0: gradients
            agree; 1: they have nothing in common), ``p_value`` and ``split``, whether it split the choice.

    Raises:
        ConfigurationError: Dependencies that are unknown, on themselves or in a circle, on what is no layer choice;
            milestones outside the training, not ascending, or more than dependencies; shared optimizer state with
            several draws in one optimizer step.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(weights=WeightSplitting('sequential', milestones=[0.6]))
        >>> strategy = SupernetStrategy(weights=WeightSplitting('sequential', milestones='auto'))

    Reference:
        Laube and Zell, "Conditional super-network weights", 2021 (first called "Inter-choice dependent
        super-network weights"), the section on weight splitting. ``'auto'``: ours; see the card.

    Deviations:
        Copies are made before training and the optimizer's state is copied with them by default; the authors'
        implementation makes them at the milestone and shares one momentum. ``'auto'`` is not theirs.
    """

    _rule = Rule()

    def __init__(
        self,
        dependencies: str | Mapping[str, Sequence[str]] = "sequential",
        milestones: Sequence[float] | Literal["auto"] = (0.6,),
        optimizer_state: Literal["copied", "zeroed", "shared"] = "copied",
    ) -> None:
        self.dependencies = dependencies
        self.milestones = milestones
        self.optimizer_state = optimizer_state
        self.resolved: Dependencies = {}
        self._resolved_for: Any = None
        self._plan: Plan | None = None
        self._layers: list[SplitLayer] = []
        self._schedule = Milestones(())
        self._auto: AutoMilestones | None = None
        self.tests: list[dict[str, Any]] = []
        self._started = False

    # Checks and set-up

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse dependencies, milestones and combinations that make no sense."""
        problems = [
            *scheme_problems(self.dependencies),
            *milestone_problems(self._given, plan.trainer),
            *optimizer_state_problems(self.optimizer_state, plan),
            *_averaging_problems(plan.trainer),
        ]
        if not problems:
            problems += self._resolve(plan)
        return problems

    @property
    def _is_auto(self) -> bool:
        return isinstance(self.milestones, str) and self.milestones == "auto"

    @property
    def _given(self) -> Any:
        """The milestones; where training decides, one, because only the first dependency will count."""
        return (0.5,) if self._is_auto else self.milestones

    def _resolve(self, plan: Plan) -> list[str]:
        """Find the dependencies once for a model, and say what is wrong with them."""
        if self._resolved_for is plan.supernet.model:
            return []
        found = resolve_dependencies(self.dependencies, plan)
        problems = list(depth_problems(self._given, found))
        # What no milestone makes count needs no copies.
        counting = {label: sources[: len(self._given)] for label, sources in found.items()}
        resolved = {label: sources for label, sources in counting.items() if sources}
        problems += [*dependency_problems(found, plan), *layer_problems(resolved, plan)]
        if not problems:
            self.resolved, self._resolved_for = resolved, plan.supernet.model
        return problems

    def arrange(self, plan: Plan) -> None:
        """Make all copies; the supernet's outputs and the random state stay as they are."""
        model = plan.supernet.model
        # Of the whole space: a part of it that is trained alone must find the same copies.
        candidates = Supernet(model).domain.singles
        for label, sources in self.resolved.items():
            depends = {source: candidates[source] for source in sources}
            layers = [m for m in model.modules() if type(m) is PathSamplingLayer and str(m.label) == label]
            for layer in layers:
                split_layer(layer, depends)
        note_new_structure(model)

    def identity(self) -> str:
        """Describe the split, which a checkpoint's parameters depend on."""
        split = "; ".join(f"{label} <- {', '.join(sources)}" for label, sources in self.resolved.items())
        milestones = "auto" if self._is_auto else ", ".join(map(str, self.milestones))
        return f"{split}; at {milestones}; {self.optimizer_state}" if split else ""

    def prepare(self, plan: Plan) -> None:
        """Find the steps of the milestones."""
        self._plan, self._resolved_for = plan, None
        self._layers = split_layers(plan.supernet.model)
        self._started = False
        self._auto, self.tests = None, []
        if self._is_auto:
            self._auto = AutoMilestones(self._rule)
            self._auto.start(plan, {label: sources[0] for label, sources in self.resolved.items()})
            self.tests = self._auto.tests
            return
        self._schedule = Milestones(self._given)
        self._schedule.start(plan)

    def finish(self) -> None:
        """Let go of the run: only the supernet keeps its copies."""
        self._plan, self._resolved_for, self._layers, self._auto = None, None, [], None

    # The step

    def on_draws(self, state: StepState) -> None:
        """Split where a milestone has come."""
        if self._auto is not None:
            depths = self._auto.due(state)
            if depths is not None:
                self._go_to(depths)
            return
        passed = self._schedule.due(state)
        if passed is not None:
            self._go_to({label: min(passed, len(sources)) for label, sources in self.resolved.items()})

    def on_after_draw(self, state: StepState) -> None:
        """Look at the draw's gradients where they decide when to split."""
        if self._auto is not None:
            self._auto.measure(state)

    def checkpoint_state(self) -> dict[str, Any]:
        """Return what decisions still to be made rest on."""
        return {} if self._auto is None else self._auto.checkpoint_state()

    def restore_state(self, state: dict[str, Any]) -> None:
        """Take over what decisions still to be made rest on."""
        if self._auto is not None:
            self._auto.restore_state(state)

    def _go_to(self, depths: Mapping[str, int]) -> None:
        """Let the first so many dependencies of each choice count; what is deeper already stays."""
        if not self._started and self.optimizer_state == "shared":
            # A checkpoint holds the one state of all copies several times.
            self._split_states(self._linked())
        self._started = True
        for level in range(1, max(depths.values(), default=0) + 1):
            pairs: list[ParameterPair] = []
            # Outer layers come before the layers within their copies.
            for layer in self._layers:
                if layer.depth < min(level, depths.get(str.__str__(layer.label), 0)):
                    pairs += layer.deepen()
            self._split_states(pairs)

    def _split_states(self, pairs: list[ParameterPair]) -> None:
        plan = self._plan
        assert plan is not None
        assert isinstance(plan.optimizer, Optimizer)
        pairs = self._optimized(pairs)
        kept = [part.optimizer_states() for part in plan.observers() if isinstance(part, Component)]
        for optimizer_state in (plan.optimizer.state, *(one for states in kept for one in states)):
            split_optimizer_state(optimizer_state, pairs, self.optimizer_state)

    def _linked(self) -> list[ParameterPair]:
        return [pair for layer in self._layers for pair in layer.linked()]

    def fresh_optimizer_state(self) -> MutableMapping[Tensor, dict[str, Any]]:
        """Return an empty optimizer state, in which copies share theirs where they are to."""
        state = super().fresh_optimizer_state()
        if self.optimizer_state == "shared":
            split_optimizer_state(state, self._optimized(self._linked()), self.optimizer_state)
        return state

    def _optimized(self, pairs: list[ParameterPair]) -> list[ParameterPair]:
        """Leave out parameters that the optimizer does not hold: it would refuse to save a state of theirs."""
        assert self._plan is not None and isinstance(self._plan.optimizer, Optimizer)
        held = {id(p) for group in self._plan.optimizer.param_groups for p in group["params"]}
        return [(source, target) for source, target in pairs if id(source) in held and id(target) in held]

    # What it is for

    def weight_sets(self, supernet: Supernet, depth: int | None = None) -> dict[str, dict[Any, int]]:
        """Count the weight sets of every candidate with parameters.

        Args:
            supernet: The supernet, once the run has been checked.
            depth: How many dependencies count; default: as many as do now.

        Returns:
            Label -> candidate -> number of weight sets, the same in every layer of that label.
        """
        counts: dict[str, dict[Any, int]] = {}
        for layer in supernet.model.modules():
            if not isinstance(layer, PathSamplingLayer):
                continue
            counts[str.__str__(layer.label)] = weight_sets_of(layer, depth)
        return counts


def _averaging_problems(trainer: Any) -> Iterable[str]:
    """Yield which of the trainer's callbacks average weights: they know nothing of a milestone."""
    for callback in trainer.callbacks:
        if isinstance(callback, (StochasticWeightAveraging, WeightAveraging)):
            name = type(callback).__name__
            yield (
                f"The trainer's callbacks are expected not to average weights beside WeightSplitting, but got "
                f"{name}: a copy would be averaged with what it held before its milestone. Leave out {name}."
            )


def weight_sets_of(layer: PathSamplingLayer, depth: int | None) -> dict[Any, int]:
    """Count the weight sets of a layer's candidates with parameters, split or not."""
    if not hasattr(layer, "weight_sets"):
        return {name: 1 for name in layer.names if any(True for _ in layer[name].parameters())}
    counted: dict[Any, int] = layer.weight_sets(None if depth is None else min(depth, len(layer.depends)))
    return counted
