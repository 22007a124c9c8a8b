"""What is not finite is left out of results: NNI's page cannot draw it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite_only(metrics: Mapping[str, Any], *keep: str) -> dict[str, Any]:
    """Return plain numbers, without those that are NaN or infinite.

    A metric that a trial lacks costs NNI's page that one trial's point. Null makes it a choice among texts, with a
    tick for every value and no colours; NaN takes the lines or the ticks of all trials.

    Args:
        metrics: Name -> number.
        *keep: Names of metrics that stay whatever they are.

    Example:
        >>> finite_only({'default': float('nan'), 'val_loss': float('inf'), 'flops': 12}, 'default')
        {'default': nan, 'flops': 12}
    """
    numbers = {str(name): int(value) if isinstance(value, int) else float(value) for name, value in metrics.items()}
    return {name: value for name, value in numbers.items() if name in keep or math.isfinite(value)}
