"""Refuse a part's state that a resumed run could not read, before a checkpoint is written."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from nni_supernet_ext.errors import CheckpointError

_PLAIN = frozenset({type(None), bool, int, float, str, Tensor, torch.nn.Parameter})
_LARGEST = 1 << 1000
"""Whole numbers from here on are tried out: torch reads none of more than 255 bytes."""


def plain_state(part: str, state: Any) -> Any:
    """Return a part's state if ``torch.load(weights_only=True)`` will read it.

    Args:
        part: The part's class, for the message.
        state: What its ``checkpoint_state`` returned.

    Returns:
        The state.

    Raises:
        CheckpointError: A value that torch refuses; the message names the part and the place of the value.

    Example:
        >>> plain_state('Sampler', {'scores': [0.5, 1.0]})
        {'scores': [0.5, 1.0]}
    """
    found = _refused(state, "", set())
    if found is not None:
        place, value = found
        raise CheckpointError(
            f"`{part}.checkpoint_state(){place}` is expected to be plain (None, bool, int, float, str, tensors, "
            f"and lists, tuples and dicts of these), but got {_described(value)}, with which no run could resume. "
            f"{_remedy(value)}, and turn it back in `restore_state`."
        )
    return state


def _refused(value: Any, place: str, seen: set[int]) -> tuple[str, Any] | None:
    """Return where in a value the first thing is that torch would not load, and the thing."""
    kind = type(value)
    if kind is int and not -_LARGEST < value < _LARGEST:
        return None if _loads(value) else (place, value)
    if kind in _PLAIN:
        return None
    if not isinstance(value, Collection) or isinstance(value, (Tensor, bytes, bytearray, str)):
        return None if _loads(value) else (place, value)
    if id(value) in seen:
        return None
    seen.add(id(value))
    if kind not in (list, tuple, dict) and not _is_container(value):
        return place, value
    for inner, item in _inside(value, place):
        found = _refused(item, inner, seen)
        if found is not None:
            return found
    return None


def _is_container(value: Any) -> bool:
    """Tell whether torch loads this kind of container, whatever it holds: an empty one tells."""
    try:
        return _loads(type(value)())
    except Exception:  # a kind that is not made without arguments, as a named tuple
        return False


def _inside(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield everything in a container with its place; keys before what they lead to."""
    if isinstance(value, Mapping):
        for index, (key, item) in enumerate(value.items()):
            yield f"{place}.keys()[{index}]", key
            yield f"{place}[{key!r}]", item
    else:
        for index, item in enumerate(value):
            yield f"{place}[{index}]", item


def _loads(value: Any) -> bool:
    """Tell by trying whether torch reads a value back without trusting the file."""
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # pickling runs the value's own code, which may raise anything
        return False
    return True


def _described(value: Any) -> str:
    text = repr(value)
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{name} {text if len(text) <= 60 else text[:57] + '...'}".replace("\n", " ")


def _remedy(value: Any) -> str:
    """Name how to make a value plain."""
    if hasattr(value, "tolist"):
        return "Save `.tolist()` of it"
    if isinstance(value, str):
        return "Save `str.__str__(...)` of it"
    if isinstance(value, Mapping):
        return "Save `dict(...)` of it"
    return "Save its content in plain containers, of a sample the candidates' indices"
