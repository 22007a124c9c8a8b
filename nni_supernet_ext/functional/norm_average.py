"""Averages of norms that are not measured in every step."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional._vectors import FloatVector

_KINDS = ("mean", "pairwise")


class NormAverage:
    """Average the norms that each of ``n`` items had, whenever it was measured.

    Args:
        n: Number of items.
        kind: ``'mean'`` of an item's measurements; or ``'pairwise'``, the mean of the value so far (0 at first)
            and the new one: recent measurements weigh more, and one measurement alone counts half.

    Attributes:
        values: Averages, shape ``(n,)``; 0 where nothing was measured.
        counts: Number of measurements, shape ``(n,)``.

    Raises:
        ConfigurationError: Unknown ``kind``.

    Example:
        >>> average = NormAverage(2)
        >>> average.add([0], [4.0]); average.add([0], [2.0])
        >>> average.values.tolist(), average.counts.tolist()
        ([3.0, 0.0], [2, 0])

    Reference:
        Lu et al., CVPR 2023, section 3.4; ``'pairwise'`` is what the authors' training script does.
    """

    def __init__(self, n: int, kind: Literal["mean", "pairwise"] = "mean") -> None:
        if kind not in _KINDS:
            raise ConfigurationError(
                f"Argument `kind` is expected to be one of {_KINDS}, but got {kind!r}. Use 'mean', the default."
            )
        self.kind = kind
        self.values: FloatVector = np.zeros(n)
        self.counts: NDArray[np.int64] = np.zeros(n, dtype=np.int64)

    def add(self, items: Any, norms: Any) -> None:
        """Take in measurements of items; with ``'pairwise'`` no item may appear twice in one call.

        Args:
            items: Indices, shape ``(m,)``.
            norms: Finite norms, shape ``(m,)``.
        """
        items, norms = np.asarray(items, dtype=np.int64), np.asarray(norms, dtype=np.float64)
        if self.kind == "pairwise":
            self.values[items] = (self.values[items] + norms) / 2
            self.counts[items] += 1
            return
        sums = self.values * self.counts
        np.add.at(sums, items, norms)
        np.add.at(self.counts, items, 1)
        self.values = sums / np.maximum(self.counts, 1)

    def over(self, previous: FloatVector) -> FloatVector:
        """Return the averages, with ``previous`` where nothing was measured, shape ``(n,)``."""
        return np.where(self.counts > 0, self.values, previous)
