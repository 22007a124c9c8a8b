"""The hooks that a user's module has of its own, beside those of NNI and Lightning."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

_logger = logging.getLogger(__name__)

_LIBRARIES = ("nni", "pytorch_lightning", "lightning")


def own_hook(module: Any, name: str) -> Callable[..., Any] | None:
    """Return a module's hook if its own class defines it; None where it is NNI's or Lightning's.

    Args:
        module: The evaluator's Lightning module.
        name: For example ``'on_validation_epoch_end'``: NNI's reports what is no result of a single subnet.
    """
    owner = next((cls for cls in type(module).__mro__ if name in vars(cls)), None)
    if owner is None or owner.__module__.partition(".")[0] in _LIBRARIES:
        return None
    hook: Callable[..., Any] = getattr(module, name)
    return hook


def warn_of_mixed_outputs(module: Any, n_subnets: int) -> None:
    """Say that a validation of several subnets in training shows a module's own hook the outputs of all."""
    if n_subnets > 1 and own_hook(module, "on_validation_epoch_end") is not None:
        _logger.warning(
            "Hook `on_validation_epoch_end` of %s sees what `validation_step` keeps for %d subnets together: what "
            "it logs is no result of one of them. Log in `validation_step` (a torchmetrics object where a whole "
            "epoch is needed), or validate one subnet. A search calls the hook for each subnet.",
            type(module).__name__,
            n_subnets,
        )
