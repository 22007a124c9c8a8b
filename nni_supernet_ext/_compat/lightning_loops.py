"""The parts of Lightning's loops that have no public name."""

from __future__ import annotations

from typing import Any


def restart_train_iterator(trainer: Any) -> None:
    """Make the training loader's iterator anew.

    When a run resumes, Lightning 2 makes the first epoch's iterator before any hook in which the random state
    could be restored, and then uses it; so the iterator's draws would come from the wrong state.

    Args:
        trainer: Lightning trainer, inside ``on_train_start``.
    """
    fetcher = getattr(trainer.fit_loop, "_data_fetcher", None)
    if fetcher is not None:
        iter(fetcher)
