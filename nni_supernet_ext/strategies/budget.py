"""Constraints of a search, checked before anything is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nni_supernet_ext.core.complexity import Complexity, find_extremes, resolve_complexity
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.errors import ConstraintError


class Budget:
    """Hold the bounds on parameters and FLOPs and a user's predicate.

    Args:
        supernet: The supernet to search.
        max_parameters: Upper bound on parameters, or None.
        max_flops: Upper bound on multiply-adds per example, or None.
        constraint: Predicate on samples, or None.
        inputs: Example input for counting FLOPs; None counts none.

    Raises:
        ConstraintError: Even the smallest subnet exceeds a bound.
    """

    def __init__(
        self,
        supernet: Supernet,
        *,
        max_parameters: float | None = None,
        max_flops: float | None = None,
        constraint: Callable[[Sample], bool] | None = None,
        inputs: Any = None,
    ) -> None:
        self._domain = supernet.domain
        self._parameters = resolve_complexity("parameters", supernet)
        self._flops = resolve_complexity("flops", supernet, inputs) if inputs is not None else None
        self._bounds: list[tuple[str, Complexity, float]] = []
        if max_parameters is not None:
            self._bounds.append(("max_parameters", self._parameters, max_parameters))
        if max_flops is not None and self._flops is not None:
            self._bounds.append(("max_flops", self._flops, max_flops))
        self._constraint = constraint
        self._smallest: list[dict[str, Any]] = []
        for name, measure, bound in self._bounds:
            smallest = find_extremes(measure, self._domain)
            if smallest.minimum > bound:
                raise ConstraintError(
                    f"Argument `{name}` is expected to admit the smallest subnet, which has "
                    f"{smallest.minimum:,.0f}, but got {bound:,.0f}. Raise it, or use a smaller space."
                )
            self._smallest.append(smallest.smallest)

    def smallest(self) -> list[dict[str, Any]]:
        """Return the smallest subnets by each bounded measure, as far as they keep all bounds."""
        return [sample for sample in self._smallest if self.admits(sample)]

    def admits(self, sample: Sample) -> bool:
        """Tell whether a sample keeps every bound, the space's own constraints included."""
        return (
            self._domain.satisfies_constraints(sample)
            and all(measure(sample) <= bound for _, measure, bound in self._bounds)
            and (self._constraint is None or self._constraint(sample))
        )

    def random(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw a sample within the budget.

        Raises:
            ConstraintError: 1,000 samples in a row broke the budget.
        """
        return self._domain.random(rng, self.admits)

    def costs(self, sample: Sample) -> tuple[float, float | None]:
        """Return parameters and multiply-adds (None if not counted)."""
        return self._parameters(sample), self._flops(sample) if self._flops is not None else None
