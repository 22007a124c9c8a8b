"""Train and eval mode of every module, put back one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def preserved_modes(module: nn.Module) -> Iterator[None]:
    """Put back the mode of a module and of everything in it on exit, also after an error.

    ``train()`` and ``eval()`` would give all of them the same mode.
    """
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
