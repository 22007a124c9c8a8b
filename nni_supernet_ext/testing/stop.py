"""Stop a training early, as a kill between two epochs would."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


class StopAfter(pl.Callback):
    """Stop the trainer after some epochs, leaving its planned length alone.

    Args:
        epochs: Epochs to finish.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Ask the trainer to stop."""
        if trainer.current_epoch + 1 >= self.epochs:
            trainer.should_stop = True
