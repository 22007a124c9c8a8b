"""The global random state: kept in a checkpoint, so that shuffling and dropout go on as planned, or set aside."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader


def capture_random_state(loader: Any) -> dict[str, Any]:
    """Return the global random states and that of the loader's own generator.

    Args:
        loader: The training loader, of any kind; None for the global states alone.

    Returns:
        Plain containers and tensors.
    """
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    generator = _generator(loader)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "python": _listed(random.getstate()),
        "loader": generator.get_state() if generator is not None else None,
    }


def restore_random_state(state: dict[str, Any], loader: Any) -> None:
    """Put back what :func:`capture_random_state` returned.

    Args:
        state: A captured state.
        loader: The training loader of the resumed run; None for the global states alone.
    """
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all([value.cpu() for value in state["cuda"]])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    generator = _generator(loader)
    if generator is not None and state["loader"] is not None:
        generator.set_state(state["loader"].cpu())


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch for the time of a block, and put them back.

    Args:
        seed: Seed of them all.
    """
    before = capture_random_state(None)
    try:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
    finally:
        restore_random_state(before, None)


def _generator(loader: Any) -> torch.Generator | None:
    return loader.generator if isinstance(loader, DataLoader) else None


def _listed(state: tuple[Any, ...]) -> list[Any]:
    return [list(part) if isinstance(part, tuple) else part for part in state]
