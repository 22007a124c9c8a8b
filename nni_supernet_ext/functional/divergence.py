"""Divergences between a teacher's and a student's predicted distributions, from logits and in log space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nni_supernet_ext.functional._logits import Reduction, log_probabilities, reduced, relative_entropy

__all__ = ["jensen_shannon_divergence", "kl_divergence", "reversed_kl_divergence"]


def kl_divergence(student: Tensor, teacher: Tensor, *, dim: int = 1, reduction: Reduction = "mean") -> Tensor:
    """Return the Kullback-Leibler divergence KL(p || q) of the student q from the teacher p.

    It is large where the student gives little probability to what the teacher finds likely. The teacher gets
    no gradient.

    Args:
        student: Logits of the student, shape ``(N, C)`` or dense ``(N, C, ...)``.
        teacher: Logits of the teacher, same shape.
        dim: Dimension of the classes. Default 1; -1 for ``(N, tokens, C)``.
        reduction: ``'mean'`` over samples and positions (default), ``'sum'``, or ``'none'`` for one value
            each.

    Returns:
        Divergence in nats: a scalar, or the shape without ``dim`` with ``'none'``.

    Raises:
        ConfigurationError: No logits of at least two classes, different shapes, or an unknown reduction.

    Example:
        >>> teacher = torch.tensor([[0.0, 0.0]])
        >>> round(kl_divergence(torch.tensor([[math.log(3.0), 0.0]]), teacher).item(), 4)
        0.1438

    Reference:
        Hinton et al., "Distilling the Knowledge in a Neural Network", NIPS workshop 2014, section 2; in
        place: Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019,
            section 3.3.
    """
    log_q, log_p = log_probabilities(student, teacher, dim)
    return reduced(relative_entropy(log_p, log_q, dim), reduction)


def reversed_kl_divergence(
    student: Tensor, teacher: Tensor, *, dim: int = 1, reduction: Reduction = "mean"
) -> Tensor:
    """Return the reversed Kullback-Leibler divergence KL(q || p) of the teacher p from the student q.

    It is large where the student finds likely what the teacher does not.

    Args:
        student: Logits of the student, shape ``(N, C)`` or dense ``(N, C, ...)``.
        teacher: Logits of the teacher, same shape; gets no gradient.
        dim: Dimension of the classes. Default 1.
        reduction: ``'mean'`` (default), ``'sum'`` or ``'none'``.

    Returns:
        Divergence in nats: a scalar, or the shape without ``dim`` with ``'none'``.

    Raises:
        ConfigurationError: As :func:`kl_divergence`.

    Example:
        >>> teacher = torch.tensor([[0.0, 0.0]])
        >>> round(reversed_kl_divergence(torch.tensor([[math.log(3.0), 0.0]]), teacher).item(), 4)
        0.1308

    Reference:
        The limit of the alpha-divergence for alpha -> 0: Wang et al., "AlphaNet: Improved Training of
        Supernets with Alpha-Divergence", ICML 2021, section 3.
    """
    log_q, log_p = log_probabilities(student, teacher, dim)
    return reduced(relative_entropy(log_q, log_p, dim), reduction)


def jensen_shannon_divergence(
    student: Tensor, teacher: Tensor, *, dim: int = 1, reduction: Reduction = "mean"
) -> Tensor:
    """Return the Jensen-Shannon divergence: the mean divergence of both from their mixture.

    It is symmetric and never above ln 2.

    Args:
        student: Logits of the student, shape ``(N, C)`` or dense ``(N, C, ...)``.
        teacher: Logits of the teacher, same shape; gets no gradient.
        dim: Dimension of the classes. Default 1.
        reduction: ``'mean'`` (default), ``'sum'`` or ``'none'``.

    Returns:
        Divergence in nats: a scalar, or the shape without ``dim`` with ``'none'``.

    Raises:
        ConfigurationError: As :func:`kl_divergence`.

    Example:
        >>> certain = torch.tensor([[200.0, -200.0]])
        >>> opposite = jensen_shannon_divergence(certain, -certain)
        >>> round(opposite.item() / math.log(2.0), 6)
        1.0

    Reference:
        Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on Information Theory
        37(1), 1991, Eq. 3.8 and section IV.
    """
    log_q, log_p = log_probabilities(student, teacher, dim)
    # What both exclude has no mixture, and adds nothing below.
    absent = log_p.isneginf() & log_q.isneginf()
    log_mixture = torch.logaddexp(log_p.masked_fill(absent, 0.0), log_q.masked_fill(absent, 0.0)) - math.log(2.0)
    both = relative_entropy(log_p, log_mixture, dim) + relative_entropy(log_q, log_mixture, dim)
    return reduced(both / 2, reduction)
