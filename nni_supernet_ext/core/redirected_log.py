"""Catch what an evaluator's steps log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

Log = Callable[..., None]


@contextmanager
def redirected_log(module: Any, log: Log) -> Iterator[None]:
    """Send what ``module.log`` is called with to ``log`` while the context lasts."""
    own = vars(module).get("log")
    module.log = log
    try:
        yield
    finally:
        if own is None:
            del module.log
        else:
            module.log = own


def muted_log(module: Any) -> AbstractContextManager[None]:
    """Forget what ``module.log`` is called with while the context lasts."""
    return redirected_log(module, _ignore)


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Take what a step logs and forget it."""
