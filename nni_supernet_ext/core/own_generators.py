"""The random generators that a loader, its sampler, data set and transforms keep for themselves."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import BuiltinMethodType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

_MOST_PARTS = 64
"""Longer containers hold data, not the parts that a loader is made of."""


@contextmanager
def own_generators_seeded(root: Any, seed: int) -> Iterator[None]:
    """Seed all generators below an object, and afterwards give them the states they had.

    Looked through are attributes, short containers, bound methods and ``functools.partial``. Not seen are
    generators behind a module's global variable or inside a running iterator.

    Args:
        root: The object, for example a loader.
        seed: Seed of each generator meanwhile.

    Example:
        >>> import types
        >>> part = types.SimpleNamespace(transforms=[types.SimpleNamespace(rng=random.Random(3))])
        >>> with own_generators_seeded(part, 0):
        ...     first = part.transforms[0].rng.random()
        >>> first == random.Random(0).random(), part.transforms[0].rng.random() == random.Random(3).random()
        (True, True)
    """
    with ExitStack() as restored:
        found = [_controls(generator) for generator in _generators(root)]
        for restore, _ in found:
            restored.callback(restore)
        for _, reseed in found:
            reseed(seed)
        yield


def _generators(root: Any) -> Iterator[Any]:
    """Find each generator once."""
    waiting, seen = [root], {id(root): root}
    while waiting:
        part = waiting.pop()
        if isinstance(part, _KINDS) and not isinstance(part, random.SystemRandom):
            yield part
        for inner in _parts(part):
            if id(inner) not in seen:
                seen[id(inner)] = inner
                waiting.append(inner)


def _parts(part: Any) -> Iterable[Any]:
    if isinstance(part, (str, bytes, type, ModuleType, torch.Tensor, np.ndarray)):
        return ()
    found = list(getattr(part, "__dict__", {}).values())
    if isinstance(part, (MethodType, BuiltinMethodType)):
        found.append(part.__self__)
    elif isinstance(part, partial):
        found += (part.func, part.args, part.keywords)
    elif isinstance(part, (dict, list, tuple, set, frozenset)) and len(part) <= _MOST_PARTS:
        found += part.values() if isinstance(part, dict) else part
    return found


_Controls = tuple[Callable[[], Any], Callable[[int], Any]]


def _controls(generator: Any) -> _Controls:
    """Return how to put a generator back to the state it has now, and how to seed it."""
    if isinstance(generator, torch.Generator):
        return partial(generator.set_state, generator.get_state()), generator.manual_seed
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate()), generator.seed
    if isinstance(generator, np.random.RandomState):
        return partial(generator.set_state, generator.get_state(legacy=False)), partial(_reseed_legacy, generator)
    bits = generator.bit_generator if isinstance(generator, np.random.Generator) else generator
    return partial(setattr, bits, "state", bits.state), partial(_reseed, bits)


def _reseed(bits: np.random.BitGenerator, seed: int) -> None:
    bits.state = type(bits)(seed).state


def _reseed_legacy(generator: np.random.RandomState, seed: int) -> None:
    fresh = type(generator._bit_generator)(seed).state
    generator.set_state({**fresh, "has_gauss": 0, "gauss": 0.0})


_KINDS = (torch.Generator, random.Random, np.random.RandomState, np.random.Generator, np.random.BitGenerator)
