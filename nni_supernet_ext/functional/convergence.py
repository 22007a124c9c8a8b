"""When a loss curve has converged, and whether larger subnets take longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.functional._vectors import VectorLike, as_pair, as_vector
from nni_supernet_ext.functional.rank_correlation import kendall_tau

__all__ = ["complexity_convergence", "convergence_step"]


def convergence_step(losses: VectorLike, tolerance: float = 0.1) -> int:
    """Return when a training loss had made all but a fraction of its way, and kept it.

    Relative to the curve's own first and last value: a small subnet ends at a higher loss than a large one, so a
    threshold on the loss itself would call it slow where it merely has less capacity.

    Args:
        losses: Loss over time, shape ``(T,)``, smoothed where it is noisy: a mean per epoch.
        tolerance: Fraction of the way from the first to the last value that may be missing, in (0, 1). Default 0.1.

    Returns:
        First index from which every loss is at most ``last + tolerance * (first - last)``; 0 for a curve that
        never falls.

    Raises:
        ConfigurationError: Fewer than 2 values, or ``tolerance`` out of range.
        DataError: NaN, or a first or last value that is infinite: there is no fraction of the way between them.

    Example:
        >>> convergence_step([2.0, 1.5, 1.05, 1.0])  # within 1.0 + 0.1 * (2.0 - 1.0)
        2
    """
    curve = as_vector("losses", losses)
    if curve.size < 2 or not 0 < tolerance < 1:
        raise ConfigurationError(
            f"Arguments `losses` and `tolerance` are expected to hold at least 2 values and to be within (0, 1), "
            f"but got {curve.size} and {tolerance}. Use a mean per epoch, and 0.1."
        )
    last = curve[-1]
    if not np.isfinite(curve[[0, -1]]).all():
        raise DataError(
            f"Argument `losses` is expected to have a finite first and last value, but got {curve[0]} and {last}. "
            "Leave out what diverged."
        )
    above = (curve > last + tolerance * (curve[0] - last)).nonzero()[0]
    return int(above[-1]) + 1 if above.size and curve[0] > last else 0


def complexity_convergence(
    complexities: VectorLike,
    curves: Sequence[VectorLike],
    tolerance: float = 0.1,
    correlation: Callable[[Any, Any], float] = kendall_tau,
) -> float:
    """Return the correlation of complexity with the time that training takes to converge.

    Args:
        complexities: Complexity of each subnet or group of subnets, shape ``(n,)``.
        curves: The training loss of each, over the same times.
        tolerance: As in :func:`convergence_step`. Default 0.1.
        correlation: Function of two vectors. Default: Kendall's tau-b, since convergence is counted in whole epochs
            and its scale has no meaning; ``pearson_r`` for a linear one.

    Returns:
        Positive where the more complex converge later; NaN where all take equally long.

    Raises:
        ConfigurationError: The lengths differ, also among the curves, or are below 2, or ``tolerance`` is out of
            range.
        DataError: As :func:`convergence_step`.

    Example:
        >>> complexity_convergence([1e5, 1e6], [[2.0, 1.0, 1.0], [2.0, 1.5, 1.0]])
        1.0

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025, appendix,
        Table D: correlation of complexity with convergence.

    Deviations:
        The measure of convergence is ours: the appendix was not at hand.
    """
    lengths = {len(curve) for curve in curves}
    if len(lengths) > 1:
        raise ConfigurationError(
            f"Argument `curves` is expected to hold losses over the same times, but got lengths from "
            f"{min(lengths)} to {max(lengths)}. Cut them to the same epochs."
        )
    steps = [float(convergence_step(curve, tolerance)) for curve in curves]
    return correlation(*as_pair(("complexities", "curves"), complexities, steps, at_least=2))
