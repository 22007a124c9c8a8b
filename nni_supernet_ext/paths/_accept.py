"""Whether a predicate on samples can be asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def accept_problems(accept: Any) -> Iterator[str]:
    """Yield what is wrong with an argument ``accept``."""
    if accept is not None and not callable(accept):
        yield (
            f"Argument `accept` is expected to be a function of the sample or None, but got {accept!r}. Use None "
            "to accept every sample."
        )
