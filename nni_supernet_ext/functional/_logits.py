"""Check and reduce what the divergences between two networks' outputs have in common."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nni_supernet_ext.errors import ConfigurationError

Reduction = Literal["mean", "sum", "none"]
"""How the divergences of the positions become one number: ``'mean'``, ``'sum'`` or, kept apart,
``'none'``."""

_REDUCTIONS = ("mean", "sum", "none")


def log_probabilities(student: Tensor, teacher: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Turn two networks' logits into log-probabilities, the teacher's without gradient.

    Args:
        student: Logits, any shape with at least two dimensions.
        teacher: Logits of the same shape.
        dim: Dimension of the classes.

    Returns:
        Log-probabilities of the student and of the teacher, in float32 at least.

    Raises:
        ConfigurationError: No logits of at least two classes, or two different shapes.
    """
    _refuse_what_has_no_classes(student, teacher, dim)
    precise = torch.promote_types(student.dtype, torch.float32)
    # One tensor minus its largest logit: exact, and the exponentials cannot overflow.
    return (
        torch.log_softmax(student.to(precise), dim),
        torch.log_softmax(teacher.detach().to(precise), dim),
    )


def relative_entropy(log_first: Tensor, log_second: Tensor, dim: int) -> Tensor:
    """Sum first * log(first / second) over the classes; a first probability of zero adds zero.

    Zero is what has the logarithm ``-inf``; a probability that merely underflows is not, so it adds infinity where
    the second is zero.

    Args:
        log_first: Log-probabilities, shape ``(N, C, ...)``; ``-inf`` for a class that is excluded.
        log_second: Log-probabilities of the same shape.
        dim: Dimension of the classes.

    Returns:
        The sums, shape without ``dim``; infinite where the second excludes what the first does not. There the
        second's gradient, minus the first, stays finite, and the first's does not.
    """
    ratio = (log_first - log_second).masked_fill(log_first.isneginf(), 0.0)
    first = log_first.exp()
    # Only there: elsewhere the product is infinite by itself, and has the right gradient.
    underflown = (first == 0) & ratio.isposinf()
    return (first * ratio).masked_fill(underflown, torch.inf).sum(dim)


def reduced(values: Tensor, reduction: Reduction) -> Tensor:
    """Reduce the divergences of all positions.

    Args:
        values: One divergence per position, shape ``(N, ...)``.
        reduction: ``'mean'``, ``'sum'`` or ``'none'``.

    Returns:
        A scalar, or ``values`` themselves.

    Raises:
        ConfigurationError: Unknown reduction.
    """
    if reduction == "mean":
        return values.mean()
    if reduction == "sum":
        return values.sum()
    if reduction == "none":
        return values
    raise ConfigurationError(
        f"Argument `reduction` is expected to be one of {_REDUCTIONS}, but got {reduction!r}. Use 'mean'."
    )


def _refuse_what_has_no_classes(student: Tensor, teacher: Tensor, dim: int) -> None:
    for name, logits in (("student", student), ("teacher", teacher)):
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            found = str(logits.dtype) if isinstance(logits, Tensor) else type(logits).__name__
            raise ConfigurationError(
                f"Argument `{name}` is expected to be a floating-point tensor of logits, but got {found}. "
                "Pass the network's output before the softmax."
            )
    if student.shape != teacher.shape:
        raise ConfigurationError(
            f"Argument `student` is expected to have the teacher's shape {tuple(teacher.shape)}, but got "
            f"{tuple(student.shape)}. Distil outputs that every subnet gives in one shape."
        )
    if student.dim() < 2 or not -student.dim() <= dim < student.dim() or student.shape[dim] < 2:
        raise ConfigurationError(
            f"Argument `student` is expected to hold at least two classes in dimension {dim} of (N, C, ...), "
            f"but got shape {tuple(student.shape)}. A single value per position has no distribution: distil "
            "classification or segmentation outputs."
        )
