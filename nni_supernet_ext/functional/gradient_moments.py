"""Variance of gradients over a training's steps, at the memory of one copy of the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class GradientMoments:
    """Accumulate mean and variance of the gradients of some tensors, step by step.

    Each tensor has its own count, because a supernet's step reaches only the weights of its subnets. Kept are
    one running mean of each tensor's shape and one number per tensor; all of a step's tensors are handled by a
    few fused operations, and no value leaves the device before :meth:`variances`.

    Example:
        >>> moments, weight = GradientMoments(), torch.zeros(2)
        >>> for gradient in ([1.0, 0.0], [3.0, 0.0]):
        ...     moments.add([weight], [torch.tensor(gradient)])
        >>> moments.variances()  # of the first element: ((1 - 2)^2 + (3 - 2)^2) / 2
        [1.0]

    Reference:
        Lu et al., "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", CVPR 2023, Eq. 14; the recurrence
        is Welford's, "Note on a Method for Calculating Corrected Sums of Squares and Products", Technometrics
        1962.
    """

    def __init__(self) -> None:
        self._index: dict[int, int] = {}
        self._means: list[Tensor] = []
        self._counts: list[int] = []
        self._squares: list[Tensor] = []

    def add(self, tensors: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Take in one step's gradients.

        Args:
            tensors: The tensors (known by identity) that have a gradient in this step.
            gradients: Their gradients, of the same shapes.
        """
        if not tensors:
            return
        with torch.no_grad():
            places = [self._place(tensor, gradient) for tensor, gradient in zip(tensors, gradients, strict=True)]
            means = [self._means[place] for place in places]
            for place in places:
                self._counts[place] += 1
            counts = [float(self._counts[place]) for place in places]
            moved = torch._foreach_sub(list(gradients), means)
            distances = torch._foreach_norm(moved)
            torch._foreach_mul_(moved, [1.0 / count for count in counts])
            torch._foreach_add_(means, moved)
            # Welford: the sum of squares grows by |g - old mean|^2 (n - 1) / n.
            growth = torch._foreach_mul(torch._foreach_mul(distances, distances), [(c - 1) / c for c in counts])
            torch._foreach_add_([self._squares[place] for place in places], growth)

    def variances(self) -> list[float]:
        """Return each tensor's variance summed over its elements, in the order of first appearance.

        Tensors that were reached only once have variance 0. One transfer from the device.
        """
        if not self._squares:
            return []
        squares = torch.stack(self._squares).double().cpu().tolist()
        return [square / max(count, 1) for square, count in zip(squares, self._counts, strict=True)]

    def sizes(self) -> list[int]:
        """Return each tensor's number of elements, in the order of :meth:`variances`."""
        return [mean.numel() for mean in self._means]

    def counts(self) -> list[int]:
        """Return in how many steps each tensor had a gradient, in the order of :meth:`variances`."""
        return list(self._counts)

    def reset(self) -> None:
        """Start anew, keeping the memory."""
        if self._means:
            torch._foreach_zero_(self._means)
            torch._foreach_zero_(self._squares)
        self._counts = [0] * len(self._counts)

    def _place(self, tensor: Tensor, gradient: Tensor) -> int:
        place = self._index.get(id(tensor))
        if place is None:
            place = self._index[id(tensor)] = len(self._means)
            dtype = torch.promote_types(gradient.dtype, torch.float32)
            self._means.append(torch.zeros_like(gradient, dtype=dtype))
            self._squares.append(torch.zeros((), dtype=dtype, device=gradient.device))
            self._counts.append(0)
        return place
