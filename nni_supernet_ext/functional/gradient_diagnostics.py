"""How the gradients of different subnets agree, and how much a subnet's gradient varies from batch to batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.functional.gradient_moments import GradientMoments

__all__ = ["gradient_cosine", "gradient_deviation", "hamming_distance"]

Gradients: TypeAlias = Sequence[Tensor | None]


def hamming_distance(first: Mapping[str, Any], second: Mapping[str, Any]) -> int:
    """Return in how many choices two subnets differ.

    Args:
        first: Architecture, label -> candidate.
        second: Architecture with the same labels.

    Returns:
        Number of labels, from 0 to all.

    Raises:
        ConfigurationError: The labels differ.

    Example:
        >>> hamming_distance({'a': 'conv', 'b': 'skip'}, {'a': 'conv', 'b': 'pool'})
        1
    """
    if first.keys() != second.keys():
        raise ConfigurationError(
            f"Argument `second` is expected to have the labels {list(first)}, but got {list(second)}. Compare "
            "subnets of one space."
        )
    return sum(bool(first[label] != second[label]) for label in first)


def gradient_cosine(first: Gradients, second: Gradients) -> float:
    """Return the cosine of the angle between two subnets' gradients, over the weights that both contain.

    Args:
        first: One gradient per weight tensor of the supernet, None where the subnet does not contain it.
        second: The same of the other subnet, in the same order.

    Returns:
        Cosine in [-1, 1]; NaN where they share no weight, or a gradient is zero or not finite on those that they
        share.

    Raises:
        ConfigurationError: The lengths differ.
        DataError: Two gradients of one weight have different shapes.

    Example:
        >>> import torch
        >>> one, other = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
        >>> round(gradient_cosine([one, None, one], [other, one, None]), 4)
        0.7071

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025, Table I:
        mean cosine similarity of gradients against structural distance.

    Deviations:
        That only shared weights count is our reading: others are not updated by both. A tensor of which a subnet
        uses a part counts whole, with zeros elsewhere.
    """
    if len(first) != len(second):
        raise ConfigurationError(
            f"Arguments `first` and `second` are expected to have the same length, but got {len(first)} and "
            f"{len(second)}. Give one entry for each weight of the supernet."
        )
    shared = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    _refuse_different_shapes(shared)
    if not shared:
        return math.nan
    # One transfer from the device for all tensors.
    sums = torch.stack(
        [torch.stack([(x * y).sum() for x, y in ((a, b), (a, a), (b, b))]) for a, b in _in_double(shared)]
    ).sum(0)
    product, square_a, square_b = sums.tolist()
    if square_a == 0 or square_b == 0 or not all(map(math.isfinite, (product, square_a, square_b))):
        return math.nan
    return max(-1.0, min(1.0, product / (math.sqrt(square_a) * math.sqrt(square_b))))


def gradient_deviation(gradients: Sequence[Gradients]) -> float:
    """Return the standard deviation of a subnet's gradient over batches, for a typical weight.

    Args:
        gradients: For each batch one gradient per weight tensor, None where the subnet does not contain it; at
            least 2 batches.

    Returns:
        Root of the variance over the batches, averaged over all elements of the subnet's weights.

    Raises:
        ConfigurationError: Fewer than 2 batches, or no gradient at all.
        DataError: Batches of different lengths, or gradients of one weight with different shapes.

    Example:
        >>> import torch
        >>> gradient_deviation([[torch.tensor([1.0, 5.0]), None], [torch.tensor([3.0, 5.0]), None]])  # (1 + 0) / 2
        0.707...

    Reference:
        Jeon et al., CVPR 2025, appendix, figure B: standard deviation of gradients.

    Deviations:
        Deviation over batches, pooled over weights, is our definition; the appendix was not at hand.
    """
    if len(gradients) < 2 or not any(g is not None for batch in gradients for g in batch):
        raise ConfigurationError(
            f"Argument `gradients` is expected to hold gradients of at least 2 batches, but got {len(gradients)} "
            "batches or no gradient. Measure on more batches."
        )
    _refuse_different_weights(gradients)
    moments = GradientMoments()
    names = [torch.empty(0) for _ in gradients[0]]  # tensors only as identities
    for batch in gradients:
        present = [index for index, gradient in enumerate(batch) if gradient is not None]
        values: list[Any] = [batch[index] for index in present]
        moments.add([names[index] for index in present], values)
    return math.sqrt(sum(moments.variances()) / sum(moments.sizes()))


def _refuse_different_weights(gradients: Sequence[Gradients]) -> None:
    lengths = {len(batch) for batch in gradients}
    if len(lengths) > 1:
        raise DataError(
            f"Argument `gradients` is expected to hold as many entries for each batch, but got from {min(lengths)} "
            f"to {max(lengths)}. Give one entry for each weight of the supernet."
        )
    for column in zip(*gradients, strict=True):
        shapes = {tuple(gradient.shape) for gradient in column if gradient is not None}
        if len(shapes) > 1:
            raise DataError(
                f"Argument `gradients` is expected to hold gradients of the same shapes for each batch, but got "
                f"{sorted(shapes)}. Give the gradients of the same weights in the same order."
            )


def _refuse_different_shapes(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    for a, b in pairs:
        if a.shape != b.shape:
            raise DataError(
                f"Arguments `first` and `second` are expected to hold gradients of the same shapes, but got "
                f"{tuple(a.shape)} and {tuple(b.shape)}. Give the gradients of the same weights in the same order."
            )


def _in_double(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    # Apple's accelerator has no double precision.
    return [(a, b) if a.device.type == "mps" else (a.double(), b.double()) for a, b in pairs]
