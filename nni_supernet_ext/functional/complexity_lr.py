"""Learning rates that decay slower the more complex the trained subnet is (CaLR)."""

from __future__ import annotations

import math
from typing import Literal

from nni_supernet_ext.errors import ConfigurationError

__all__ = ["ComplexityTransform", "complexity_aware_lr", "complexity_exponent", "exponent_coefficients"]

ComplexityTransform = Literal["log", "linear", "exp"]
"""How a complexity enters the exponent: ``'log'`` (the paper's choice), ``'linear'`` or ``'exp'``."""

# Complexities are sums of many terms; summing them in another order moves the result by a few ulp.
_RELATIVE_TOLERANCE = 1e-12

# Only the closed form of 'exp' needs these: math.exp overflows just above the first, and the slope, a number
# divided by the width, just below the second.
_LARGEST_EXP_ARGUMENT = 709.0
_SMALLEST_WIDTH = 1e-300


def complexity_exponent(
    complexity: float,
    *,
    minimum: float,
    maximum: float,
    gamma_max: float = 4.0,
    transform: ComplexityTransform = "log",
) -> float:
    """Return the decay exponent of a subnet from its complexity.

    The exponent falls from ``gamma_max`` for the smallest subnet to ``1 / gamma_max`` for the largest, in
    proportion to the transformed complexity. The two ends are met exactly.

    Args:
        complexity: Complexity of the subnet (parameters, FLOPs, latency, ...), in any unit.
        minimum: Complexity of the smallest subnet of the space, same unit.
        maximum: Complexity of the largest subnet of the space, same unit.
        gamma_max: Exponent of the smallest subnet, at least 1; 1 gives every subnet the exponent 1. The paper
            uses 4 on NAS-Bench-201 and 3 on MobileNet spaces.
        transform: ``'log'`` (needs positive complexities), ``'linear'`` or ``'exp'``. Only ``'linear'`` and
            ``'log'`` are independent of the unit: with ``'exp'``, complexities that differ by much more than
            1 all get ``gamma_max`` except those next to the maximum, so give them in a unit that keeps the
            differences near 1.

    Returns:
        The exponent, in ``[1 / gamma_max, gamma_max]``.

    Raises:
        ConfigurationError: If the range is empty, the complexity lies outside of it, ``gamma_max`` is below
            1, a number is not finite, or ``'log'`` meets a complexity that is not positive.

    Example:
        >>> size = {"minimum": 72_752, "maximum": 1_524_272}
        >>> complexity_exponent(72_752, **size), complexity_exponent(1_524_272, **size)
        (4.0, 0.25)
        >>> round(complexity_exponent(234_032, **size), 4)
        2.5598

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025,
        section 3.2: the decay ratio gamma of the complexity-aware learning rate scheduler.

    Deviations:
        The affine map is evaluated between its two ends instead of through its slope and offset
        (``exponent_coefficients``): the same numbers in exact arithmetic, without overflow for ``'exp'``.
    """
    low, high, gamma_prime = _checked_range(minimum, maximum, gamma_max, transform)
    value = _clamped(float(complexity), low, high)
    share = _transformed_share(value, low, high, transform)
    # From the nearer end, so that both ends, and gamma_max 1, come out exactly.
    gamma_min = 1.0 / gamma_prime
    drop = gamma_prime - gamma_min
    return gamma_prime - share * drop if share < 0.5 else gamma_min + (1.0 - share) * drop


def exponent_coefficients(
    minimum: float, maximum: float, gamma_max: float = 4.0, transform: ComplexityTransform = "log"
) -> tuple[float, float]:
    """Return slope and offset of the exponent as a function of the transformed complexity.

    ``complexity_exponent(c) == slope * g(c) + offset`` up to rounding, where ``g`` is the transform. For
    ``'exp'`` the slope and ``g`` leave the range of floats for complexities above 709, although their product
    does not; use ``complexity_exponent`` there, which never forms them.

    Args:
        minimum: Complexity of the smallest subnet of the space.
        maximum: Complexity of the largest subnet of the space, same unit.
        gamma_max: Exponent of the smallest subnet, at least 1.
        transform: ``'log'``, ``'linear'`` or ``'exp'``.

    Returns:
        The pair (omega, tau) of the paper.

    Raises:
        ConfigurationError: As for ``complexity_exponent``, and for ``'exp'`` where ``exp(maximum)`` overflows
            or the transformed range vanishes.

    Example:
        >>> omega, tau = exponent_coefficients(72_752, 1_524_272)
        >>> round(omega, 5), round(tau, 5)
        (-1.23265, 17.79933)

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025,
        section 3.2: omega and tau of the decay ratio.
    """
    low, high, gamma_prime = _checked_range(minimum, maximum, gamma_max, transform)
    gamma_min = 1.0 / gamma_prime
    if transform == "log":
        top, width = math.log(high), _log_ratio(high, low)
    elif transform == "linear":
        top, width = high, high - low
    else:
        top, width = _exp_top_and_width(low, high)
    omega = -(gamma_prime - gamma_min) / width
    return omega, gamma_min - omega * top


def complexity_aware_lr(base_lr: float, iteration: int, total_iterations: int, exponent: float) -> float:
    """Return the learning rate of one optimizer step of a subnet.

    The rate depends on nothing but its arguments, so a resumed or repeated iteration gets the same rate.

    Args:
        base_lr: Learning rate at iteration 0, at least 0.
        iteration: Number of iterations done before, in ``[0, total_iterations]``.
        total_iterations: Number of iterations of the whole training, at least 1.
        exponent: Decay exponent of the subnet, at least 0 (see ``complexity_exponent``). 1 decays linearly, 0
            not at all.

    Returns:
        ``base_lr * (1 - iteration / total_iterations) ** exponent``.

    Raises:
        ConfigurationError: If an argument is outside of its range or NaN.

    Example:
        >>> [complexity_aware_lr(0.1, t, 4, exponent=2.0) for t in (0, 2, 4)]
        [0.1, 0.025, 0.0]

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025,
        section 3.2: the complexity-aware learning rate eta of an iteration.
    """
    if not (0 <= iteration <= total_iterations and total_iterations > 0 and base_lr >= 0 and exponent >= 0):
        raise ConfigurationError(_lr_problems(base_lr, iteration, total_iterations, exponent))
    # (T - t) / T, not 1 - t / T, which loses digits near the end of the training.
    return float(base_lr * ((total_iterations - iteration) / total_iterations) ** exponent)


def _checked_range(minimum: float, maximum: float, gamma_max: float, transform: str) -> tuple[float, float, float]:
    """Return the three numbers as floats, or raise what is wrong with them."""
    if transform not in ("log", "linear", "exp"):
        raise ConfigurationError(
            f"Argument `transform` is expected to be 'log', 'linear' or 'exp', but got {transform!r}. "
            "Use 'log' for the published setting."
        )
    low, high, gamma_prime = float(minimum), float(maximum), float(gamma_max)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigurationError(
            f"Arguments `minimum` and `maximum` are expected to be finite, but got {low} and {high}. "
            "Check the complexity function."
        )
    if not 1.0 <= gamma_prime < math.inf:
        raise ConfigurationError(
            f"Argument `gamma_max` is expected to be finite and at least 1, but got {gamma_prime}. "
            "Use 1 to switch the dependence on the complexity off."
        )
    if transform == "log" and low <= 0:
        raise ConfigurationError(
            f"Argument `minimum` is expected to be positive for transform 'log', but got {low}. "
            "Count a part that every subnet has, or use transform 'linear'."
        )
    if low == high:
        raise ConfigurationError(
            f"Argument `maximum` is expected to be larger than `minimum`, but every subnet has the same "
            f"complexity {low}. Use a plain scheduler or another complexity."
        )
    if low > high:
        raise ConfigurationError(
            f"Argument `maximum` is expected to be larger than `minimum`, but got {high} and {low}. Swap the two."
        )
    return low, high, gamma_prime


def _clamped(complexity: float, low: float, high: float) -> float:
    """Move a complexity that rounding put outside of the range onto its end, and refuse any other."""
    tolerance = _RELATIVE_TOLERANCE * max(abs(low), abs(high))
    if not low - tolerance <= complexity <= high + tolerance:
        raise ConfigurationError(
            f"Argument `complexity` is expected to be within [{low}, {high}], but got {complexity}. "
            "Give the complexities of the smallest and of the largest subnet as `minimum` and `maximum`."
        )
    return min(max(complexity, low), high)


def _transformed_share(value: float, low: float, high: float, transform: str) -> float:
    """Return how far ``value`` lies between the ends after the transform: 0 at ``low``, 1 at ``high``."""
    if transform == "log":
        return _log_ratio(value, low) / _log_ratio(high, low)
    if transform == "linear":
        return (value - low) / (high - low)
    # exp(value - high) * (1 - exp(low - value)) / (1 - exp(low - high)): every argument is <= 0.
    return math.exp(value - high) * (math.expm1(low - value) / math.expm1(low - high))


def _log_ratio(value: float, reference: float) -> float:
    """Return ``log(value / reference)`` without losing digits where the two are close."""
    if value < 2.0 * reference:
        return math.log1p((value - reference) / reference)
    return math.log(value) - math.log(reference)


def _exp_top_and_width(low: float, high: float) -> tuple[float, float]:
    """Return ``exp(high)`` and ``exp(high) - exp(low)``, or raise where floats cannot hold them."""
    top = math.exp(high) if high <= _LARGEST_EXP_ARGUMENT else math.inf
    width = -math.expm1(low - high) * top
    if not _SMALLEST_WIDTH < width < math.inf:
        raise ConfigurationError(
            "Argument `maximum` is expected to have a finite, non-zero exponential for transform 'exp', but "
            f"got {high}. Give complexities in a unit that keeps them near 1, or call `complexity_exponent`."
        )
    return top, width


def _lr_problems(base_lr: float, iteration: int, total_iterations: int, exponent: float) -> list[str]:
    """Name every argument of ``complexity_aware_lr`` that is outside of its range."""
    problems = []
    if not base_lr >= 0:
        problems.append(
            f"Argument `base_lr` is expected to be at least 0, but got {base_lr}. Give a learning rate."
        )
    if not total_iterations > 0:
        problems.append(
            f"Argument `total_iterations` is expected to be at least 1, but got {total_iterations}. "
            "Give the number of iterations of the whole training."
        )
    elif not 0 <= iteration <= total_iterations:
        problems.append(
            f"Argument `iteration` is expected to be within [0, {total_iterations}], but got {iteration}. "
            "Count from 0, and let `total_iterations` cover the whole training."
        )
    if not exponent >= 0:
        problems.append(
            f"Argument `exponent` is expected to be at least 0, but got {exponent}. "
            "Compute it with `complexity_exponent`."
        )
    return problems
