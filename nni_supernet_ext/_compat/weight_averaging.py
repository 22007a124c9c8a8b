"""Lightning's averaging of weights, where no training is left to end."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


def transfer_averages(trainer: Any, module: Any) -> None:
    """Give a module the averaged weights of a checkpoint whose training was over already.

    Lightning keeps averages beside the weights and transfers them when a training ends; one that has nothing left
    to do does not end.

    Args:
        trainer: Lightning trainer, inside ``on_fit_end``.
        module: The module that it would have trained.
    """
    averaging: tuple[Any, ...] = tuple(filter(None, [getattr(pl.callbacks, "WeightAveraging", None)]))
    for callback in trainer.callbacks:
        if isinstance(callback, averaging):
            callback.on_train_end(trainer, module)
