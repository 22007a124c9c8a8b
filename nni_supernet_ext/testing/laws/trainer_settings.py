"""The settings of a Lightning trainer that a training must leave as they were."""

from __future__ import annotations

from typing import Any

_NAMES = (
    "accumulate_grad_batches",
    "check_val_every_n_epoch",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "limit_train_batches",
    "limit_val_batches",
    "log_every_n_steps",
    "max_epochs",
    "max_steps",
    "num_sanity_val_steps",
    "overfit_batches",
    "reload_dataloaders_every_n_epochs",
    "val_check_interval",
)


def trainer_settings(trainer: Any) -> dict[str, str]:
    """Return limits, intervals and clipping of a trainer by name, written out: a limit of 1 is none of 1.0.

    Example:
        >>> from nni_supernet_ext.testing import toy_evaluator
        >>> trainer_settings(toy_evaluator(3).trainer)['max_epochs']
        '3'
    """
    return {name: repr(getattr(trainer, name, None)) for name in _NAMES}
