"""The evaluator of a search, and the data it brings."""

from __future__ import annotations

from typing import Any

from nni.nas.evaluator.pytorch import Lightning

from nni_supernet_ext.errors import ConfigurationError


def checked_evaluator(evaluator: Any) -> Lightning:
    """Return the evaluator if a search can use it.

    Raises:
        ConfigurationError: It is no Lightning evaluator, or has no validation data.
    """
    if not isinstance(evaluator, Lightning):
        raise ConfigurationError(
            f"The evaluator is expected to be an NNI Lightning evaluator, but got {type(evaluator).__name__}. Use "
            "the one the supernet was trained with."
        )
    if evaluator.datamodule is None and evaluator.val_dataloaders is None:
        raise ConfigurationError(
            "Argument `val_dataloaders` of the evaluator is expected to be a loader, but got None. Give the "
            "search validation data."
        )
    return evaluator


def loader_of(evaluator: Lightning, stage: str) -> Any:
    """Return the evaluator's loader for ``'train'`` or ``'val'``, from its data module where it has one."""
    if evaluator.datamodule is not None:
        evaluator.datamodule.setup("fit")
        return getattr(evaluator.datamodule, f"{stage}_dataloader")()
    return getattr(evaluator, f"{stage}_dataloaders")
