"""The checkpoint that Lightning adds to a trainer by itself."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint


def default_checkpoint(trainer: Any) -> Any:
    """Return the callback that Lightning made because the user gave none: it writes into the working directory.

    Args:
        trainer: NNI's trainer, which knows the arguments it was made with.

    Returns:
        The callback, or None where the user gave one, or switched checkpoints off.
    """
    arguments = getattr(trainer, "trace_kwargs", {})
    given = arguments.get("callbacks") or []
    given = given if isinstance(given, (list, tuple)) else [given]
    if arguments.get("enable_checkpointing") is False or any(isinstance(c, Checkpoint) for c in given):
        return None
    # Those that the user has appended since come after it.
    return next((c for c in trainer.callbacks if type(c) is ModelCheckpoint), None)
