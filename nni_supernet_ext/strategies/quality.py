"""Which of two evaluations is better where nobody said by which metric."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nni_supernet_ext.core.metric_direction import usual_mode
from nni_supernet_ext.recording.quality import quality

__all__ = ["quality", "usual_quality"]


def usual_quality(metrics: Mapping[str, float]) -> float:
    """Rank by accuracy where one was logged, else by the validation loss.

    Args:
        metrics: Logged name -> value. The accuracy is ``val_acc``, else the first name that is by its words better
            where it is larger; the loss is ``val_loss``, else the first that is better where it is smaller.

    Returns:
        A number that is larger for a better evaluation; minus infinity where neither was logged, so that an
        evaluator of other metrics has all subnets in the order they are in.

    Example:
        >>> usual_quality({'val_loss': 2.0, 'val_acc': 0.3}), usual_quality({'val_mse': 2.0})
        (0.3, -2.0)
    """
    for mode, usual in (("max", "val_acc"), ("min", "val_loss")):
        names = [name for name in metrics if usual_mode(name) == mode]
        if names:
            return quality(metrics[usual if usual in names else names[0]], mode)
    return -math.inf
