"""Importance sampling of paths and data: distributions with a floor, schedules, per-sample bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.functional._targets import require_distributions
from nni_supernet_ext.functional._vectors import FloatVector, VectorLike, as_vector

Schedule: TypeAlias = Literal["linear", "linear_down"] | float | Callable[[float], float]
"""Smoothing over the training: a name, a constant, or a function of the progress (0 to 1)."""

_IGNORED = -100
"""The label of examples that a loss ignores, by default of torch's cross-entropy."""

_NAMED: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: progress,
    "linear_down": lambda progress: 1.0 - progress,
}


def smoothed_distribution(norms: VectorLike, smoothing: float, prior: VectorLike | None = None) -> FloatVector:
    """Mix the distribution proportional to ``norms`` with a prior: ``s * norms / sum(norms) + (1 - s) * prior``.

    Args:
        norms: Gradient norms, shape ``(n,)``, none negative or NaN. Infinite ones share the first part equally.
            Where all are zero there is nothing to go by, and the prior is returned.
        smoothing: ``s``, from 0 (prior only) to 1 (norms only).
        prior: Distribution to fall back on, shape ``(n,)``, divided by its sum; default uniform.

    Returns:
        Probabilities, shape ``(n,)``, float64, each at least ``(1 - s)`` times its entry of the prior.

    Raises:
        ConfigurationError: A negative norm, a smoothing outside of 0 to 1, shapes that differ, or a prior that is
            no distribution: negative or infinite entries, or zeros only.
        DataError: A norm is NaN.

    Example:
        >>> smoothed_distribution([3.0, 1.0, 0.0, 0.0], 0.5).tolist()
        [0.5, 0.25, 0.125, 0.125]

    Reference:
        Lu et al., "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", CVPR 2023, Eq. 10 and 13 with the
        smoothing of section 3.4.
    """
    values = as_vector("norms", norms)
    base = np.full(values.size, 1.0 / max(values.size, 1)) if prior is None else as_vector("prior", prior)
    if base.size != values.size or not values.size:
        raise ConfigurationError(
            f"Argument `prior` is expected to have the {values.size} entries of `norms`, and at least one, but "
            f"got {base.size}. Give one probability per norm."
        )
    if (base < 0).any() or not 0.0 < base.sum() < np.inf:
        raise ConfigurationError(
            f"Argument `prior` is expected to hold finite probabilities that are not all 0, but got "
            f"{base.tolist()}. Give a distribution, or None for the uniform one."
        )
    if (values < 0).any():
        raise ConfigurationError(
            f"Argument `norms` is expected to hold no negative number, but got {values.min()}. Give norms."
        )
    if not 0.0 <= smoothing <= 1.0:
        raise ConfigurationError(
            f"Argument `smoothing` is expected to lie between 0 and 1, but got {smoothing!r}. Use a schedule that "
            "stays in this range."
        )
    largest = values.max()
    if smoothing == 0.0 or largest == 0.0:
        return base / base.sum()
    # Dividing by the largest first keeps the sum from overflowing; infinite norms are the limit of equal ones.
    scaled = np.isinf(values).astype(np.float64) if np.isinf(largest) else values / largest
    mixed = smoothing * scaled / scaled.sum() + (1.0 - smoothing) * base / base.sum()
    return mixed / mixed.sum()


def resolve_schedule(schedule: Schedule, name: str = "schedule") -> Callable[[float], float]:
    """Turn a schedule argument into a function of the training's progress.

    Args:
        schedule: ``'linear'`` (0 at the start, 1 at the end), ``'linear_down'`` (1 to 0), a constant from 0 up
            to but not including 1, or a function from the progress (0 to 1) to a number from 0 to 1.
        name: The argument's name in an error.

    Returns:
        Function from the progress to the smoothing.

    Raises:
        ConfigurationError: Unknown name, a constant out of range; the function returned raises it for a value
            out of range.

    Example:
        >>> resolve_schedule('linear')(0.25), resolve_schedule(lambda t: t**2)(0.5)
        (0.25, 0.25)

    Reference:
        Lu et al., CVPR 2023, section 3.4 and Table 4 (schedules compared).
    """
    if isinstance(schedule, str) and schedule in _NAMED:
        return _NAMED[schedule]
    if isinstance(schedule, (int, float)) and not isinstance(schedule, bool) and 0 <= schedule < 1:
        constant = float(schedule)
        return lambda progress: constant
    if not callable(schedule):
        raise ConfigurationError(
            f"Argument `{name}` is expected to be one of {tuple(_NAMED)}, a number of at least 0 and below 1, or a "
            f"function of the progress, but got {schedule!r}. Use 'linear', or a constant that leaves every "
            "candidate a chance."
        )
    function = schedule

    def checked(progress: float) -> float:
        value = float(function(progress))
        if not 0.0 <= value <= 1.0:
            raise ConfigurationError(
                f"Argument `{name}` is expected to return a number from 0 to 1, but got {value} at progress "
                f"{progress:.3f}. Clip its result."
            )
        return value

    return checked


def gradient_norm_bound(logits: Tensor, targets: Tensor) -> Tensor:
    """Bound each example's gradient norm by that of the loss in the logits: ``||softmax(z) - y||_2``.

    Args:
        logits: Outputs before the softmax, shape ``(N, C)``, any floating dtype.
        targets: Class indices, shape ``(N,)``, integer; or class probabilities, shape ``(N, C)``, floating. The
            index -100 is cross-entropy's default for an example that it ignores: it has no gradient, so its bound
            is 0.

    Returns:
        Norms, shape ``(N,)``, float32, detached, on the device of ``logits``.

    Raises:
        DataError: Shapes or dtypes that do not fit; where the targets are on the CPU, other indices outside of 0 to
            C - 1 and rows that are no distribution. Elsewhere indices are an error of the device, as for the loss,
            and rows are not looked at: it would have to wait for the device.

    Example:
        >>> gradient_norm_bound(torch.tensor([[0.0, 0.0], [500.0, 0.0]]), torch.tensor([0, 0])).tolist()
        [0.70710..., 0.0]

    Reference:
        Lu et al., CVPR 2023, Eq. 13.

    Deviations:
        Soft targets (label smoothing, mixup) take the place of the one-hot vector: cross-entropy's gradient in
        the logits is the softmax minus the target distribution for these too.
    """
    if logits.dim() != 2:
        raise DataError(
            f"Argument `logits` is expected to have shape (N, C), but got {tuple(logits.shape)}. Give one row of "
            "class scores per example."
        )
    with torch.no_grad():
        probabilities = torch.softmax(logits.detach().float(), dim=1)
        if targets.shape == logits.shape and targets.is_floating_point():
            if targets.device.type == "cpu":  # to look at others would have to wait for the device
                require_distributions(targets)
            return torch.linalg.vector_norm(probabilities - targets.float(), dim=1)
        if targets.shape != logits.shape[:1] or targets.is_floating_point():
            raise DataError(
                f"Argument `targets` is expected to hold class indices of shape {tuple(logits.shape[:1])} or class "
                f"probabilities of shape {tuple(logits.shape)}, but got {targets.dtype} of shape "
                f"{tuple(targets.shape)}. Give the labels that the loss uses."
            )
        classes = targets.long()
        ignored = classes == _IGNORED
        classes = classes.masked_fill(ignored, 0)
        _refuse_unknown_classes(classes, logits.shape[1])
        minus_one = probabilities.new_full((), -1.0).expand(len(targets), 1)
        probabilities.scatter_add_(1, classes.unsqueeze(1), minus_one)
        return torch.linalg.vector_norm(probabilities, dim=1).masked_fill(ignored, 0.0)


def _refuse_unknown_classes(classes: Tensor, n_classes: int) -> None:
    # On the CPU a tensor's values are at hand; on other devices to read them would wait for all queued work.
    if classes.device.type != "cpu" or not classes.numel():
        return
    values = classes.numpy()
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest >= n_classes:
        raise DataError(
            f"Argument `targets` is expected to hold class indices from 0 to {n_classes - 1}, or {_IGNORED} for "
            f"ignored examples, but got {lowest if lowest < 0 else highest}. Give as many class scores as there "
            f"are classes, and {_IGNORED} for what the loss ignores by another index."
        )


def importance_weight(probabilities: Sequence[float], prior: Sequence[float]) -> float:
    """Return the factor that makes a draw's gradient unbiased: the product of ``prior / probability``.

    Args:
        probabilities: Probability with which each of the draw's candidates was drawn.
        prior: Probability that each would have had under the distribution to be unbiased for; ``1/n`` for
            uniform ones.

    Returns:
        The factor; 1 where both are the same.

    Raises:
        DataError: The lengths differ.

    Example:
        >>> importance_weight([0.5, 0.25], [0.25, 0.25])
        0.5

    Reference:
        Lu et al., CVPR 2023, Eq. 5, with ``N p`` the product over the choices of ``n p``.
    """
    if len(probabilities) != len(prior):
        raise DataError(
            f"Arguments `probabilities` and `prior` are expected to have the same length, but got "
            f"{len(probabilities)} and {len(prior)}. Give both for each of the draw's candidates."
        )
    ratio = np.asarray(prior, dtype=np.float64) / np.asarray(probabilities, dtype=np.float64)
    return float(np.prod(ratio))
