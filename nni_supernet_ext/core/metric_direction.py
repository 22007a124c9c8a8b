"""Notice a metric that is optimised in the direction its name speaks against."""

from __future__ import annotations

import logging
import re
from typing import Any

_logger = logging.getLogger(__name__)

_BETTER: dict[str, str] = {
    **dict.fromkeys(("loss", "mse", "mae", "rmse", "nll", "error", "err", "perplexity", "ppl"), "min"),
    **dict.fromkeys(("acc", "accuracy", "auc", "auroc", "f1"), "max"),
}
_TURNED = frozenset({"neg", "negative", "minus", "inverse"})


def usual_mode(metric: str) -> str | None:
    """Return the direction in which a metric is usually optimised, judged by the words of its name.

    Args:
        metric: Name of a logged metric.

    Returns:
        ``'max'`` or ``'min'``; None where the name says nothing, or two things.

    Example:
        >>> usual_mode('val_mse'), usual_mode('val_acc1'), usual_mode('neg_loss'), usual_mode('glossary')
        ('min', 'max', None, None)
    """
    words = re.findall(r"[a-z0-9]+", metric.lower())
    modes = {mode for word in words if (mode := _BETTER.get(word, _BETTER.get(word.rstrip("0123456789"))))}
    return modes.pop() if len(modes) == 1 and not _TURNED & set(words) else None


def warn_of_unusual_mode(metric: Any, mode: Any, owner: str) -> None:
    """Warn where the worst would be taken for the best; a name is no proof, so nothing is refused.

    Args:
        metric: Name of a logged metric; what is none is left to other checks.
        mode: ``'max'`` or ``'min'``; so is what is neither.
        owner: Who optimises it, for the message.
    """
    usual = usual_mode(metric) if isinstance(metric, str) else None
    if usual is None or mode not in ("max", "min") or mode == usual:
        return
    _logger.warning(
        "Argument `mode` of %s is %r with `metric=%r`, which by its name is better where it is %s: the worst would "
        "be taken for the best. Use `mode=%r`, unless this is meant.",
        owner,
        mode,
        metric,
        "smaller" if usual == "min" else "larger",
        usual,
    )
