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

    Args:
        skip_infinite: Leave out gradients that are not finite, as loss scaling in half precision makes now and
            then; takes a few operations per tensor instead. Default False.

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

    def __init__(self, skip_infinite: bool = False) -> None:
        self.skip_infinite = skip_infinite
        self._index: dict[int, int] = {}
        self._means: list[Tensor] = []
        self._counts: list[int] = []
        self._skipped: list[Tensor] = []
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
            if self.skip_infinite:
                for place, gradient in zip(places, gradients, strict=True):
                    self._add_if_finite(place, gradient)
                return
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
        return [square / max(count, 1) for square, count in zip(squares, self.counts(), strict=True)]

    def sizes(self) -> list[int]:
        """Return each tensor's number of elements, in the order of :meth:`variances`."""
        return [mean.numel() for mean in self._means]

    def counts(self) -> list[int]:
        """Return in how many steps each tensor had a gradient, in the order of :meth:`variances`."""
        if not self.skip_infinite or not self._skipped:
            return list(self._counts)
        skipped = torch.stack(self._skipped).cpu().tolist()
        return [count - int(left_out) for count, left_out in zip(self._counts, skipped, strict=True)]

    def reset(self) -> None:
        """Start anew, keeping the memory."""
        if self._means:
            torch._foreach_zero_(self._means)
            torch._foreach_zero_(self._squares)
            torch._foreach_zero_(self._skipped)
        self._counts = [0] * len(self._counts)

    def _add_if_finite(self, place: int, gradient: Tensor) -> None:
        """Take in one gradient without asking the device whether it is finite."""
        self._counts[place] += 1
        moved = gradient - self._means[place]
        finite = moved.isfinite().all()
        self._skipped[place] += ~finite
        count = (self._counts[place] - self._skipped[place]).clamp(min=1)
        moved = torch.where(finite, moved, torch.zeros_like(moved))
        self._means[place] += moved / count
        self._squares[place] += moved.square().sum() * (count - 1) / count

    def _place(self, tensor: Tensor, gradient: Tensor) -> int:
        place = self._index.get(id(tensor))
        if place is None:
            place = self._index[id(tensor)] = len(self._means)
            dtype = torch.promote_types(gradient.dtype, torch.float32)
            self._means.append(torch.zeros_like(gradient, dtype=dtype))
            self._squares.append(torch.zeros((), dtype=dtype, device=gradient.device))
            self._counts.append(0)
            self._skipped.append(torch.zeros((), device=gradient.device))
        return place
