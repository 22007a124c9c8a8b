"""Do everything that is left to do at the end of a run, whatever goes wrong in between."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

_logger = logging.getLogger(__name__)


def do_all(steps: Iterable[Callable[[], object]], failed: bool) -> None:
    """Take every step, also after one that raises.

    The first error of a run is the one to read: it is raised, and what comes after it is only logged.

    Args:
        steps: What to do, in this order.
        failed: Whether an error of the run itself is on its way, so that none may take its place.

    Example:
        >>> done = []
        >>> do_all([lambda: 1 / 0, lambda: done.append('closed')], failed=True)
        >>> done
        ['closed']
    """
    first: Exception | None = None
    for step in steps:
        try:
            step()
        except Exception as error:
            if failed or first is not None:
                _logger.error("Another error at the end of the run: %r.", error, exc_info=error)
            else:
                first = error
    if first is not None:
        raise first
