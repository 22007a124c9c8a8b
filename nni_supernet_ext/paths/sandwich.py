"""The sandwich rule: the largest and the smallest subnet in every step, and some in between."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nni_supernet_ext._integers import integer_problems, is_integer
from nni_supernet_ext.core.complexity import Complexity, Extremes, find_extremes, resolve_complexity
from nni_supernet_ext.core.declared import problems_of
from nni_supernet_ext.core.draw import Draw, describe_sample
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.slots import PathSampler
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.errors import CheckpointError, ConfigurationError
from nni_supernet_ext.paths.uniform import UniformPathSampler

_logger = logging.getLogger(__name__)
_PARTS = ("largest", "random", "smallest")
_GRADIENTS = ("sum", "mean")
_CHECKS = 64


class SandwichSampler(PathSampler):
    """Draw the largest subnet, the smallest one, and those of another sampler, in every step.

    The subnets between the two ends are bounded by them, so a step that trains both ends trains all. The
    draws' gradients form one optimizer step, or one each with ``step_every='subnet'``.

    Args:
        base: Sampler of the random subnets. Default :class:`~nni_supernet_ext.paths.UniformPathSampler`.
        complexity: What "large" means: ``'parameters'`` (default), ``'weights'``, ``'flops'`` or a function
            ``sample -> number``. Give a function or ``'flops'`` where a choice changes no parameter, such as
            an input resolution.
        n_random: How many times a step asks ``base`` for draws. Default 2, as in the papers.
        order: Order of the parts; a part that is not named is left out. Default largest, random, smallest.
        gradients: ``'sum'`` (default, as in the papers) or ``'mean'`` of the draws' gradients.

    Attributes:
        extremes: Both ends with their complexities, and whether they are proven; known once training has
            started, None before, and where neither end is drawn.

    Raises:
        ConfigurationError: Bad arguments, or a space whose largest and smallest subnet are equally large.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(paths=SandwichSampler(complexity='weights', n_random=2))
        >>> strategy.paths.draws_per_step, strategy.paths.roles
        (4, ('largest', 'subnet', 'subnet', 'smallest'))

    Reference:
        Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019, section
        3.1; for architectures: Yu et al., "BigNAS: Scaling Up Neural Architecture Search with Big
        Single-Stage Models", ECCV 2020, section 3.1.

    Deviations:
        The ends are those of a measured complexity, not the last and first candidate of every list.
    """

    def __init__(
        self,
        base: PathSampler | None = None,
        complexity: str | Complexity = "parameters",
        n_random: int = 2,
        order: Sequence[str] = _PARTS,
        gradients: str = "sum",
    ) -> None:
        if base is not None and not isinstance(base, PathSampler):
            # The number of draws of a step is the base's, so it is needed before anything else is checked.
            raise ConfigurationError(
                f"Argument `base` is expected to be a path sampler or None, but got {base!r}. Give an instance, "
                "such as `UniformPathSampler()`."
            )
        self.base = base if base is not None else UniformPathSampler()
        self.complexity = complexity
        self.n_random = n_random
        self.order = tuple(order)
        self.gradients = gradients
        self.claims = frozenset(getattr(self.base, "claims", ()))
        self.extremes: Extremes | None = None

    @property
    def draws_per_step(self) -> int | None:  # type: ignore[override]
        """Number of draws of a step; None where the base's varies."""
        roles = self.roles
        return len(roles) if roles is not None else None

    @property
    def roles(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """Roles of a step's draws in their order; None where the base's number of draws varies."""
        per_call = self.base.draws_per_step
        if per_call is None and "random" in self.order and self._calls:
            return None
        between = (self.base.roles or ("subnet",) * (per_call or 0)) * self._calls
        return tuple(role for part in self.order for role in (between if part == "random" else (part,)))

    @property
    def _calls(self) -> int:
        # A wrong `n_random` is reported with all other problems, after others have asked for the roles.
        return self.n_random if is_integer(self.n_random, 0) else 0

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse bad arguments, and pass on what the base refuses."""
        yield from integer_problems("Use 2, the papers'.", least=0, n_random=self.n_random)
        known = set(self.order) <= set(_PARTS) and len(set(self.order)) == len(self.order)
        if not known or (not self.roles and self.base.draws_per_step is not None):
            yield (
                f"Argument `order` is expected to name some of {_PARTS} once each and lead to a draw, but "
                f"got {self.order!r}. Use the default."
            )
        if self.gradients not in _GRADIENTS:
            yield (
                f"Argument `gradients` is expected to be one of {_GRADIENTS}, but got {self.gradients!r}. "
                "Use 'sum', as the papers do."
            )
        yield from problems_of(self.base, plan)

    def arrange(self, plan: Plan) -> None:
        """Let the wrapped sampler change the supernet."""
        self.base.arrange(plan)

    def identity(self) -> str:
        """Return the wrapped sampler's identity."""
        return self.base.identity()

    def prepare(self, plan: Plan) -> None:
        """Find both ends and prepare the base."""
        self.base.prepare(plan)
        if {"largest", "smallest"} & set(self.order):
            inputs = plan.example_inputs() if self.complexity == "flops" else None
            measure = resolve_complexity(self.complexity, plan.supernet, inputs)
            self.extremes = find_extremes(measure, plan.supernet.domain)
            self._verify(self.extremes, measure, plan)
            self._report_free_choices(self.extremes, plan)

    def draws(self, rng: np.random.Generator, state: StepState) -> Sequence[Draw]:
        """Return the step's draws in the order asked for."""
        draws: list[Draw] = []
        for part in self.order:
            if part == "random":
                for _ in range(self.n_random):
                    draws.extend(self.base.draws(rng, state))
            else:
                assert self.extremes is not None
                draws.append(Draw(getattr(self.extremes, part), role=part))
        if self.gradients == "mean":
            draws = [replace(draw, weight=draw.weight / len(draws)) for draw in draws]
        return draws

    def checkpoint_state(self) -> dict[str, Any]:
        """Return the base's state; the ends are found again."""
        return {"base": type(self.base).__name__, "state": self.base.checkpoint_state()}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Give the base its state."""
        if state["base"] != type(self.base).__name__:
            raise CheckpointError(
                f"The checkpoint is expected to come from a sandwich of {type(self.base).__name__}, but got "
                f"{state['base']}. Use the saved sampler, or another `checkpoint_dir` to start afresh."
            )
        self.base.restore_state(state["state"])

    def _report_free_choices(self, extremes: Extremes, plan: Plan) -> None:
        """Log the choices that both ends decide alike: the complexity does not see them."""
        sizes = {label: len(values) for label, values in plan.supernet.domain.options.items()}
        alike = {
            label: extremes.largest[label]
            for label, size in sizes.items()
            if size > 1 and extremes.largest[label] == extremes.smallest[label]
        }
        if alike:
            _logger.warning(
                "The largest and the smallest subnet have the same %s: `complexity` %r does not change with them. "
                "Use one that does, for example %s, if they should differ.",
                describe_sample(alike),
                self.complexity,
                "a function of the sample" if self.complexity == "flops" else "'flops'",
            )

    @staticmethod
    def _verify(extremes: Extremes, measure: Complexity, plan: Plan) -> None:
        if not extremes.minimum < extremes.maximum:
            raise ConfigurationError(
                "Argument `complexity` is expected to tell a larger subnet from a smaller one, but got "
                f"{extremes.maximum:g} for all. Use another complexity, or another path sampler."
            )
        if extremes.exact:
            return
        rng = np.random.default_rng(plan.seed)
        values = [measure(plan.supernet.domain.random(rng)) for _ in range(_CHECKS)]
        if min(values) < extremes.minimum or max(values) > extremes.maximum:
            raise ConfigurationError(
                "Argument `complexity` is expected to have its largest and smallest subnet where no single "
                f"choice improves it, but got random subnets of {min(values):g} to {max(values):g} outside "
                f"of {extremes.minimum:g} to {extremes.maximum:g}. Use 'parameters', whose ends are proven."
            )
        _logger.info("The largest and the smallest subnet were found by coordinate search, not proven.")
