"""Gradient norms of candidates, averaged, and the distributions made from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from nni_supernet_ext.functional._vectors import FloatVector
from nni_supernet_ext.functional.importance import smoothed_distribution
from nni_supernet_ext.functional.norm_average import NormAverage


class ImportanceTable:
    """Keep one averaged gradient norm per candidate, of each choice or shared by all choices.

    Args:
        candidates: Label -> candidates of the choices drawn by importance.
        priors: Label -> their prior probabilities.
        shared: Whether all choices share one norm per candidate.
        kind: How measurements are averaged, see :class:`~nni_supernet_ext.functional.NormAverage`.
        keep: Whether a candidate that was not measured keeps its norm of before; otherwise it counts as 0.
    """

    def __init__(
        self,
        candidates: Mapping[str, Sequence[Any]],
        priors: Mapping[str, Sequence[float]],
        shared: bool,
        kind: Literal["mean", "pairwise"],
        keep: bool,
    ) -> None:
        self.candidates = {label: list(values) for label, values in candidates.items()}
        self.priors = {label: np.asarray(prior, dtype=np.float64) for label, prior in priors.items()}
        self.shared, self.kind, self.keep = shared, kind, keep
        self._places: dict[tuple[str, Any], int] = {}
        slots: dict[tuple[str, Any], int] = {}
        for label, values in self.candidates.items():
            for value in values:
                owner = ("", value) if shared else (label, value)
                self._places[label, value] = slots.setdefault(owner, len(slots))
        self.estimate: FloatVector = np.zeros(len(slots))
        self.average = NormAverage(len(slots), kind)

    def add(self, norms: Iterable[tuple[str, Any, float]]) -> None:
        """Take in one draw: label, candidate and norm of each choice on its path.

        With shared norms, choices of one candidate are averaged within the draw first.
        """
        gathered: dict[int, list[float]] = {}
        for label, value, norm in norms:
            gathered.setdefault(self._places[label, value], []).append(norm)
        if gathered:
            self.average.add(list(gathered), [sum(each) / len(each) for each in gathered.values()])

    def current(self) -> FloatVector:
        """Return the norms to go by now, shape ``(entries,)``."""
        return self.average.over(self.estimate if self.keep else np.zeros_like(self.estimate))

    def close(self, estimate: FloatVector) -> None:
        """Take over an epoch's norms and start measuring anew."""
        self.estimate = estimate
        self.average = NormAverage(len(estimate), self.kind)

    def distributions(self, norms: FloatVector, smoothing: float) -> dict[str, FloatVector]:
        """Return label -> probabilities of its candidates, with the prior as the floor's distribution."""
        return {
            label: smoothed_distribution(
                norms[[self._places[label, value] for value in values]], smoothing, self.priors[label]
            )
            for label, values in self.candidates.items()
        }

    def state(self) -> dict[str, Any]:
        """Return estimate and running averages as plain containers."""
        return {
            "estimate": self.estimate.tolist(),
            "values": self.average.values.tolist(),
            "counts": self.average.counts.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.estimate = np.asarray(state["estimate"], dtype=np.float64)
        self.average.values = np.asarray(state["values"], dtype=np.float64)
        self.average.counts = np.asarray(state["counts"], dtype=np.int64)
