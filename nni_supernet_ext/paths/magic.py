"""Path sampling by gradual modification: neighbouring steps differ in one choice (MAGIC-T)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from nni_supernet_ext._compat.samples import plain_sample
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Draw
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.errors import ConstraintError
from nni_supernet_ext.paths._plain_draws import PlainDraws

_PATIENCE = 1000


class GradualPathSampler(PlainDraws):
    """Draw one subnet a step that differs from the last step's in exactly one choice (gradual modification).

    Operators shared by two subnets interfere more, the more their subnets differ; so successive subnets are
    kept as similar as possible. The first subnet is uniform. Each step picks one choice uniformly and gives it
    another candidate, so over time every subnet of a space without
    constraints is drawn equally often. The subnet in work is part of the
    checkpoint.

    Raises:
        ConstraintError: 1,000 modifications in a row violated a constraint that is written into the space.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(paths=GradualPathSampler())

    Reference:
        Xu et al., "Analyzing and Mitigating Interference in Neural Architecture Search", ICML 2022, the
        section on the gradual modification of MAGIC-T, which MAGIC-AT combines with the alignment of MAGIC-A.

    Deviations:
        Only the path sampling of MAGIC-AT. Its alignment is another decision; the method card says what it
        needs. A choice's other candidates are drawn by the prior weights of the choice, where it has some.
    """

    draws_per_step = 1

    def __init__(self) -> None:
        self._domain: Domain | None = None
        self._current: dict[str, Any] | None = None
        self._open: list[str] = []

    def prepare(self, plan: Plan) -> None:
        """Take the choices that leave something to change."""
        self._domain = plan.supernet.domain
        self._current = None
        self._open = [
            label
            for label, mutable in self._domain.mutables.items()
            if label not in self._domain.options or len(list(islice(mutable.grid(), 2))) > 1
        ]

    def draws(self, rng: np.random.Generator, state: StepState) -> Sequence[Draw]:
        """Return a draw one choice away from the last."""
        assert self._domain is not None
        self._current = self._domain.random(rng) if self._current is None else self._modified(rng)
        return (Draw(self._current),)

    def checkpoint_state(self) -> dict[str, Any]:
        """Return the subnet that the next step modifies."""
        return {"current": None if self._current is None else plain_sample(self._current)}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Take over the subnet that the next step modifies."""
        self._current = state["current"]

    def _modified(self, rng: np.random.Generator) -> dict[str, Any]:
        assert self._domain is not None and self._current is not None
        if not self._open:
            return self._current
        for _ in range(_PATIENCE):
            label = self._open[int(rng.integers(len(self._open)))]
            changed = {**self._current, label: self._domain.other(label, self._current[label], rng)}
            if self._domain.satisfies_constraints(changed):
                return changed
        raise ConstraintError(
            f"The space's constraints are expected to admit a subnet one choice away from every other, but got "
            f"none in {_PATIENCE} attempts. Loosen them, or use UniformPathSampler."
        )
