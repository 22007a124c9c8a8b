"""Write one checkpoint over itself after each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Keep ``last.ckpt`` in a folder up to date, so that a killed run loses less than an epoch.

    Lightning's ``ModelCheckpoint`` keeps a last checkpoint only beside others, and warns of a folder that is
    there already, as it is in every resumed run.

    Args:
        folder: Where to write; made when needed.

    Attributes:
        last_model_path: Path of the checkpoint once written, else empty.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "last.ckpt"
        self.last_model_path = ""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the checkpoint; Lightning puts the finished file in place in one move."""
        if trainer.fast_dev_run:
            return
        trainer.save_checkpoint(self.path, weights_only=False)
        self.last_model_path = str(self.path)
