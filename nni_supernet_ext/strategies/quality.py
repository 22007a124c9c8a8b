"""Which of two evaluations is better where nobody said by which metric."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nni_supernet_ext.recording.quality import quality

__all__ = ["quality", "usual_quality"]


def usual_quality(metrics: Mapping[str, float]) -> float:
    """Rank by accuracy where one was logged, else by the validation loss.

    Args:
        metrics: Logged name -> value. The accuracy is the first name that holds ``acc``, the loss is ``val_loss``.

    Returns:
        A number that is larger for a better evaluation; minus infinity where neither was logged, so that an
        evaluator of other metrics has all subnets in the order they are in.

    Example:
        >>> usual_quality({'val_loss': 2.0, 'val_acc': 0.3}), usual_quality({'val_loss': 2.0})
        (0.3, -2.0)
    """
    for name, value in metrics.items():
        if "acc" in name:
            return quality(value)
    return quality(metrics.get("val_loss", math.nan), "min")
