"""What an evaluator's ``configure_optimizers`` returns, in one form."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from nni_supernet_ext.errors import ConfigurationError


def optimizer_and_schedulers(configured: Any) -> tuple[Optimizer, list[Any]]:
    """Read any of the forms that Lightning allows.

    Args:
        configured: What ``configure_optimizers`` returned.

    Returns:
        The optimizer and the learning-rate schedulers.

    Raises:
        ConfigurationError: Not exactly one optimizer, or a scheduler that waits for a metric.
    """
    optimizers, schedulers = _split(configured)
    if len(optimizers) != 1:
        raise ConfigurationError(
            f"The evaluator's `configure_optimizers` is expected to return one optimizer, but got "
            f"{len(optimizers)}. Use one optimizer with several parameter groups."
        )
    if any(isinstance(scheduler, ReduceLROnPlateau) for scheduler in schedulers):
        raise ConfigurationError(
            "The evaluator's learning-rate scheduler is expected to depend on the step or epoch only, but "
            "got ReduceLROnPlateau. Use for example CosineAnnealingLR."
        )
    return optimizers[0], schedulers


def _split(configured: Any) -> tuple[list[Optimizer], list[Any]]:
    if configured is None:
        return [], []
    if isinstance(configured, Optimizer):
        return [configured], []
    if isinstance(configured, dict):
        configured = [configured]
    if len(configured) == 2 and all(isinstance(part, (list, tuple)) for part in configured):
        return list(configured[0]), [_scheduler(entry) for entry in configured[1]]
    optimizers = [entry["optimizer"] if isinstance(entry, dict) else entry for entry in configured]
    schedulers = [
        _scheduler(entry["lr_scheduler"])
        for entry in configured
        if isinstance(entry, dict) and entry.get("lr_scheduler") is not None
    ]
    return optimizers, schedulers


def _scheduler(entry: Any) -> Any:
    return entry["scheduler"] if isinstance(entry, dict) else entry
