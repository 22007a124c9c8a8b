"""Which of a trainer's callbacks are the user's, and which Lightning has added by itself."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, ModelSummary, ProgressBar, Timer


def given_callbacks(trainer: Any) -> list[Any]:
    """Return the callbacks that a trainer was made with.

    Args:
        trainer: NNI's trainer, which knows the arguments it was made with.
    """
    given = getattr(trainer, "trace_kwargs", {}).get("callbacks") or []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def default_checkpoint(trainer: Any) -> Any:
    """Return the callback that Lightning made because the user gave none: it writes into the working directory.

    Args:
        trainer: NNI's trainer, before it trains.

    Returns:
        The callback, or None where the user gave one, put another in its place, or switched checkpoints off.
    """
    given = given_callbacks(trainer)
    switched_off = getattr(trainer, "trace_kwargs", {}).get("enable_checkpointing") is False
    if switched_off or any(isinstance(callback, Checkpoint) for callback in given):
        return None
    return next((callback for callback in trainer.callbacks if _is_as_made_by_lightning(callback)), None)


def user_callbacks(trainer: Any) -> list[Any]:
    """Return a trainer's callbacks without those that Lightning adds by itself or for show."""
    default = default_checkpoint(trainer)
    return [c for c in trainer.callbacks if c is not default and not isinstance(c, (ProgressBar, ModelSummary))]


def appended_callbacks(trainer: Any) -> list[Any]:
    """Return the callbacks that the user has put into a trainer's list after it was made."""
    given = given_callbacks(trainer)
    return [
        callback
        for callback in user_callbacks(trainer)
        # A timer is made anew from the trainer's `max_time`.
        if not isinstance(callback, Timer) and not any(callback is one for one in given)
    ]


def _is_as_made_by_lightning(callback: Any) -> bool:
    return (
        type(callback) is ModelCheckpoint
        and callback.dirpath is None
        and callback.monitor is None
        and not callback.save_last
    )
