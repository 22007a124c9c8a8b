"""Gradient-norm bounds of a dataset's examples, averaged over an epoch, and the distribution made from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_supernet_ext.functional._vectors import FloatVector
from nni_supernet_ext.functional.importance import smoothed_distribution

Total = Callable[[NDArray[Any], str], NDArray[Any]]
"""Combines an array over all ranks, by ``'sum'`` or ``'max'``."""

_UNSEEN = -2
_IGNORED = -1
"""The class of examples that the loss ignores: no gradient, so it has a bound of 0 like any other class."""


class ExampleNorms:
    """Keep one averaged bound per example, or per class.

    Args:
        size: Number of examples.
        by_class: Whether examples of one class share their bound.
        keep: Whether an example (or class) that an epoch did not measure keeps its bound of before, and the mean
            before it was ever measured; otherwise it counts as 0.
    """

    def __init__(self, size: int, by_class: bool, keep: bool) -> None:
        self.by_class, self.keep = by_class, keep
        self.sums, self.counts = np.zeros(size), np.zeros(size)
        self.labels: NDArray[np.int64] = np.full(size, _UNSEEN, dtype=np.int64)
        self.estimate: FloatVector = np.full(size, np.nan)

    def add(self, indices: Any, bounds: Any, labels: Any, total: Total) -> None:
        """Take in measurements of all ranks.

        Args:
            indices: This rank's examples, shape ``(m,)``, repeats allowed.
            bounds: Their finite bounds, shape ``(m,)``.
            labels: Their classes, shape ``(m,)``, negative where the loss ignores them, or None. With soft labels
                they may change from time to time: the last one counts.
            total: Combines over ranks.
        """
        size = len(self.sums)
        self.sums += total(np.bincount(indices, weights=bounds, minlength=size), "sum")
        self.counts += total(np.bincount(indices, minlength=size).astype(np.float64), "sum")
        if self.by_class:
            seen = np.full(size, _UNSEEN, dtype=np.int64)
            if labels is not None:
                seen[indices] = np.maximum(labels, _IGNORED)
            seen = total(seen, "max")
            self.labels = np.where(seen > _UNSEEN, seen, self.labels)

    @property
    def measured(self) -> bool:
        """Whether anything was ever measured."""
        return bool(self.counts.any() or np.isfinite(self.estimate).any())

    def close(self) -> None:
        """Turn the epoch's measurements into estimates, and start measuring anew."""
        if not self.counts.any():
            return
        sums, counts = self.sums, self.counts
        if self.by_class:
            known = self.labels > _UNSEEN
            classes = self.labels[known] - _IGNORED
            per_class = [np.bincount(classes, weights=values[known]) for values in (sums, counts)]
            sums, counts = np.zeros_like(sums), np.zeros_like(counts)
            sums[known], counts[known] = per_class[0][classes], per_class[1][classes]
        fallback = self.estimate if self.keep else np.zeros_like(self.estimate)
        self.estimate = np.where(counts > 0, sums / np.maximum(counts, 1), fallback)
        self.sums, self.counts = np.zeros_like(self.sums), np.zeros_like(self.counts)

    def distribution(self, support: NDArray[np.int64], smoothing: float) -> FloatVector:
        """Return the probabilities of the examples of ``support``, shape ``(len(support),)``.

        Per class, a class is drawn first, with its share of the examples as the floor's distribution, and then one
        of its examples uniformly. Examples whose class was never seen have their share of a uniform draw; where
        what was not measured counts as 0, they are a class with that bound.
        """
        norms = self.estimate[support]
        finite = np.isfinite(norms)
        norms = np.where(finite, norms, norms[finite].mean() if finite.any() else 0.0)
        if not self.by_class:
            return smoothed_distribution(norms, smoothing)
        probabilities = np.full(len(support), 1.0 / len(support))
        mixed = (self.labels[support] > _UNSEEN) | (not self.keep)
        if mixed.any():
            labels = self.labels[support][mixed]
            _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
            per_class = np.bincount(group, weights=norms[mixed]) / sizes
            within = smoothed_distribution(per_class, smoothing, sizes / sizes.sum()) / sizes
            probabilities[mixed] = within[group] * mixed.mean()
        return probabilities

    def state(self) -> dict[str, Any]:
        """Return everything as tensors, for the checkpoint."""
        import torch

        names = ("sums", "counts", "labels", "estimate")
        return {name: torch.from_numpy(getattr(self, name).copy()) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        for name in ("sums", "counts", "labels", "estimate"):
            setattr(self, name, state[name].cpu().numpy().copy())
