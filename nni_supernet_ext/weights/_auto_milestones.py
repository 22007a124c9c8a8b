"""When weights are split, decided during training: where gradients disagree about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.split_layer import split_layers
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional.gradient_agreement import disagreement, disagreement_p_value
from nni_supernet_ext.weights._gradient_parts import GradientParts
from nni_supernet_ext.weights._milestones import window_ends


@dataclass(frozen=True)
class Rule:
    """When a choice's weights are split.

    Attributes:
        earliest: Share of the training before which nothing is split.
        latest: Share of the training at which the last decision is made.
        window: Share of the training over which gradients are gathered for a decision.
        level: A choice is split once the p-value of the test falls to this, and
        exhausted: the disagreement rises to this; 1 is where gradients have nothing in common any more.
        split_at_latest: Whether what no test has split is split in the end.
        parts: Parts the gradients of a candidate and a value are dealt out to.
        entries: Weights looked at per candidate.
        permutations: Permutations in a test.
        least: Gradients that each part needs for a candidate to count.
    """

    earliest: float = 0.3
    latest: float = 0.8
    window: float = 0.05
    level: float = 0.01
    exhausted: float = 1.0
    split_at_latest: bool = False
    parts: int = 4
    entries: int = 512
    permutations: int = 999
    least: int = 1


class AutoMilestones:
    """Decide for each choice on its own when the weights of its candidates are split.

    Args:
        rule: When a choice is split.
    """

    def __init__(self, rule: Rule | None = None) -> None:
        self.rule = rule or Rule()
        self.tests: list[dict[str, Any]] = []

    def start(self, plan: Plan, sources: Mapping[str, str]) -> None:
        """Learn the length of the training, and what is split already.

        Args:
            plan: The run.
            sources: Label of a choice -> label of the choice its weights will depend on.

        Raises:
            ConfigurationError: The training has no known length.
        """
        if plan.total_iterations is None:
            raise ConfigurationError(
                "The trainer is expected to have a known number of iterations for `milestones='auto'`, but got "
                "none. Give milestones in epochs, or set `max_epochs` or `max_steps` and use a loader with a "
                "length."
            )
        rule, total = self.rule, plan.total_iterations
        self._plan = plan
        self._checks = window_ends(rule.earliest, rule.latest, rule.window, total)
        self._from = int((rule.earliest - rule.window) * total)
        split = {str.__str__(layer.label) for layer in split_layers(plan.supernet.model) if layer.depth}
        self._groups = {label: len(plan.supernet.domain.singles[sources[label]]) for label in sources}
        # In a part of the space a choice may have one candidate left: nothing differs by it.
        self._open = [label for label in sources if label not in split and self._groups[label] > 1]
        self._parts = GradientParts(plan, sources, rule.parts, rule.entries)
        self._passed, self._first, self.tests = 0, True, []

    def due(self, state: StepState) -> dict[str, int] | None:
        """Return the choices to split now, each with its depth; None where nothing can have changed."""
        nothing: dict[str, int] | None = {} if self._first else None
        self._first = False
        if self._passed >= len(self._checks) or state.iteration < self._checks[self._passed]:
            return nothing
        self._passed = sum(state.iteration >= step for step in self._checks)
        last = self._passed == len(self._checks)
        split = [label for label in self._open if self._decide(label, state.iteration, last)]
        self._open = [] if last else [label for label in self._open if label not in split]
        self._parts.reset()
        return dict.fromkeys(split, 1) if split else nothing

    def measure(self, state: StepState) -> None:
        """Take in the gradients of the draw in work, where a decision is still to be made."""
        if not self._open or state.iteration < self._from:
            return
        self._parts.start_draw(state.index == 0)
        for label in self._open:
            self._parts.add(label, state.draw.sample)

    def _decide(self, label: str, iteration: int, last: bool) -> bool:
        """Test whether gradients disagree; equal on all ranks. What is not finite is no evidence of it."""
        rule = self.rule
        measured = [self._reduced(gram).cpu().numpy() for gram in self._parts.grams(label, rule.least)]
        grams = [gram for gram in measured if np.isfinite(gram).all()]
        groups = self._groups[label]
        rng = np.random.default_rng([self._plan.seed, iteration, *label.encode()])
        p_value, share = disagreement_p_value(grams, groups, rng, rule.permutations), disagreement(grams, groups)
        split = (p_value <= rule.level and share >= rule.exhausted) or (last and rule.split_at_latest)
        self.tests.append(
            {
                "iteration": iteration,
                "label": label,
                "disagreement": share,
                "p_value": p_value,
                "split": split,
            }
        )
        return split

    def _reduced(self, gram: torch.Tensor) -> torch.Tensor:
        """Average over ranks: their gradients are equal already, but equal splits must not rest on rounding."""
        trainer = self._plan.trainer
        if trainer.world_size == 1:
            return gram
        reduced: torch.Tensor = trainer.strategy.reduce(gram, reduce_op="mean")
        return reduced

    def checkpoint_state(self) -> dict[str, Any]:
        """Return the sums of the window, decisions made, and where in the plan of tests they stand."""
        return {"passed": self._passed, "tests": [dict(test) for test in self.tests], "sums": self._parts.state()}

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state; what is split already is the model's own."""
        self._passed = state["passed"]
        self.tests[:] = [dict(test) for test in state["tests"]]
        device = next(self._plan.supernet.model.parameters()).device
        self._parts.restore(state["sums"], device)
        if self._passed == len(self._checks):
            self._open = []
