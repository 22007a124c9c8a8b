"""Show the subnet's role and the learning rate in the trainer's progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nni_supernet_ext.core.state import StepState


@contextmanager
def annotated_progress_bar(trainer: Any, state: StepState) -> Iterator[None]:
    """Add ``role`` and ``lr`` to the progress bar while the context lasts.

    The texts are made when the bar redraws itself, not in the training step.

    Args:
        trainer: Lightning trainer; one without a progress bar is left alone.
        state: The step's published state.
    """
    bar = trainer.progress_bar_callback
    if bar is None:
        yield
        return
    own = vars(bar).get("get_metrics")
    original: Callable[..., dict[str, Any]] = bar.get_metrics

    def get_metrics(*args: Any, **kwargs: Any) -> dict[str, Any]:
        metrics = dict(original(*args, **kwargs))
        if state.draws:
            metrics["role"] = state.draw.role
        if state.learning_rate is not None:
            metrics["lr"] = f"{state.learning_rate:.2e}"
        return metrics

    bar.get_metrics = get_metrics
    try:
        yield
    finally:
        del bar.get_metrics
        if own is not None:
            bar.get_metrics = own
