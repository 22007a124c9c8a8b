"""The alpha-divergence with a clipped power, and the adaptive one that takes the worse of two alphas."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional._logits import Reduction, log_probabilities, reduced, relative_entropy

__all__ = ["adaptive_alpha_divergence", "alpha_divergence"]

_LIMIT = 1e-3
"""Closer to 0 or 1 the quotients cancel in float32, and the limits (reversed KL, KL) are the better
numbers."""


def alpha_divergence(
    student: Tensor,
    teacher: Tensor,
    alpha: float,
    *,
    beta_clip: float | None = 5.0,
    dim: int = 1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return the alpha-divergence of the student q from the teacher p, with the paper's stabilised gradient.

    ``D(p || q) = (sum of q (p/q)^alpha - 1) / (alpha (alpha - 1))``. A negative alpha punishes a student that
    finds likely what the teacher does not, a positive one a student that misses what the teacher finds
    likely.

    The derivative of q is q times that of log q, so the gradient is an expectation under the student,
    ``-1/alpha E_q[(p/q)^alpha grad log q]``, in which the power is an importance weight. It is unbounded, so
    the paper clips it: this function's gradient is ``-1/alpha E_q[min((p/q)^alpha, beta_clip) grad log q]``.
    That is not the derivative of the clipped value (which would leave out the clipped classes), so the
    weights ``q min(...)`` are constants of the backward pass and only log q is differentiated. Everything is
    computed from logarithms.

    Args:
        student: Logits of the student, shape ``(N, C)`` or dense ``(N, C, ...)``.
        teacher: Logits of the teacher, same shape; gets no gradient.
        alpha: Any finite number. 1 is :func:`kl_divergence`, 0 is :func:`reversed_kl_divergence`; so is
            everything within 0.001 of them.
        beta_clip: Largest value of the power, at least 1. Default 5, the paper's; None does not clip, and
            then far-off logits overflow. Nothing is clipped at alpha 0 and 1, whose gradients are bounded
            anyway.
        dim: Dimension of the classes. Default 1.
        reduction: ``'mean'`` (default), ``'sum'`` or ``'none'``.

    Returns:
        Divergence, with the clipped power: a scalar, or the shape without ``dim`` with ``'none'``.

    Raises:
        ConfigurationError: As :func:`kl_divergence`; an alpha that is not finite, or a clip below 1.

    Example:
        >>> far = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])
        >>> alpha_divergence(*far, alpha=-1.0).item()  # 1/2 (5 - 1)
        2.0

    Reference:
        Wang et al., "AlphaNet: Improved Training of Supernets with Alpha-Divergence", ICML 2021, section 3:
        definition, gradient and clipping.
    """
    _refuse_alpha("alpha", alpha)
    _refuse_clip(beta_clip)
    log_q, log_p = log_probabilities(student, teacher, dim)
    return reduced(_divergence(log_q, log_p, alpha, beta_clip, dim), reduction)


def adaptive_alpha_divergence(
    student: Tensor,
    teacher: Tensor,
    *,
    alpha_minus: float = -1.0,
    alpha_plus: float = 1.0,
    beta_clip: float | None = 5.0,
    dim: int = 1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return the larger of two alpha-divergences, chosen for every sample (every position of dense outputs).

    With one negative and one positive alpha, a student is punished for over- and for underestimating the
    teacher's uncertainty alike. The gradient is that of the chosen one.

    Args:
        student: Logits of the student, shape ``(N, C)`` or dense ``(N, C, ...)``.
        teacher: Logits of the teacher, same shape; gets no gradient.
        alpha_minus: Default -1, the paper's.
        alpha_plus: Default 1, the paper's: the KL divergence, which is not clipped. The clipped values of alphas
            near 1 (but not within 0.001 of it) are far from it on both sides, and the choice between both alphas
            with them.
        beta_clip: Largest value of the power; see :func:`alpha_divergence`. Default 5, the paper's.
        dim: Dimension of the classes. Default 1.
        reduction: ``'mean'`` (default), ``'sum'`` or ``'none'``.

    Returns:
        Divergence: a scalar, or the shape without ``dim`` with ``'none'``.

    Raises:
        ConfigurationError: As :func:`alpha_divergence`.

    Example:
        >>> teacher = torch.tensor([[math.log(9.0), 0.0], [0.0, 0.0]])
        >>> student = torch.tensor([[0.0, 0.0], [math.log(9.0), 0.0]])
        >>> both = adaptive_alpha_divergence(student, teacher, reduction='none')
        >>> [round(value, 4) for value in both.tolist()]
        [0.8889, 0.5108]
        >>> round(alpha_divergence(student, teacher, -1.0, reduction='none')[0].item(), 4)
        0.8889

    Reference:
        Wang et al., "AlphaNet: Improved Training of Supernets with Alpha-Divergence", ICML 2021, section 3.
    """
    _refuse_alpha("alpha_minus", alpha_minus)
    _refuse_alpha("alpha_plus", alpha_plus)
    _refuse_clip(beta_clip)
    log_q, log_p = log_probabilities(student, teacher, dim)
    minus = _divergence(log_q, log_p, alpha_minus, beta_clip, dim)
    plus = _divergence(log_q, log_p, alpha_plus, beta_clip, dim)
    return reduced(torch.where((plus >= minus) | plus.isnan(), plus, minus), reduction)


def _divergence(log_q: Tensor, log_p: Tensor, alpha: float, beta_clip: float | None, dim: int) -> Tensor:
    """Return the divergence of each position, with the clipped gradient attached to log q."""
    if abs(alpha - 1) < _LIMIT:
        return relative_entropy(log_p, log_q, dim)
    if abs(alpha) < _LIMIT:
        return relative_entropy(log_q, log_p, dim)
    constant = log_q.detach()
    if beta_clip is None:
        log_weights = (1 - alpha) * constant + alpha * log_p
    else:
        log_weights = constant + (alpha * (log_p - constant)).clamp(max=math.log(beta_clip))
    # What both exclude adds nothing.
    log_weights = log_weights.masked_fill(constant.isneginf() & log_p.isneginf(), -math.inf)
    weights = log_weights.exp()  # q min((p/q)^alpha, beta_clip)
    value = (weights - constant.exp()).sum(dim) / (alpha * (alpha - 1))
    carrier = -(weights * log_q.masked_fill(constant.isneginf(), 0.0)).sum(dim) / alpha
    return value + (carrier - carrier.detach())  # Adds zero, and the gradient.


def _refuse_alpha(name: str, alpha: float) -> None:
    if not math.isfinite(alpha):
        raise ConfigurationError(
            f"Argument `{name}` is expected to be a finite number, but got {alpha!r}. Use -1 or 1, the paper's."
        )


def _refuse_clip(beta_clip: float | None) -> None:
    if beta_clip is not None and not beta_clip >= 1:
        raise ConfigurationError(
            f"Argument `beta_clip` is expected to be a number of at least 1 or None, but got {beta_clip!r}. "
            "Use 5, the paper's; below 1 equal distributions would be clipped."
        )
