"""Samples without NNI's label type, as checkpoints and processes need them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nni_supernet_ext.errors import SpaceError

__all__ = ["plain_sample"]


def plain_sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a sample's labels and values into plain builtins.

    NNI's labels are a subclass of ``str``, which ``torch.load(weights_only=True)`` refuses.

    Args:
        sample: Label -> chosen value.

    Returns:
        An equal dictionary of exactly ``str``, ``int``, ``float``, ``bool``, ``None``, ``list``, ``tuple``
        and ``dict``.

    Raises:
        SpaceError: A value is of another kind.

    Example:
        >>> import numpy as np
        >>> plain_sample({"width": np.int64(8), "inputs": [0, 2]})
        {'width': 8, 'inputs': [0, 2]}
    """
    return {str.__str__(label): _plain_value(label, value) for label, value in sample.items()}


# A bool is an int, so it comes first.
_SCALARS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (bool, bool),
    (int, int),
    (float, float),
    (str, str.__str__),
)


def _plain_value(label: str, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    for kind, convert in _SCALARS:
        if isinstance(value, kind):
            return convert(value)
    if isinstance(value, (list, tuple)):
        items = [_plain_value(label, item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, Mapping):
        return {_plain_value(label, key): _plain_value(label, item) for key, item in value.items()}
    raise SpaceError(
        f"Argument `sample` is expected to hold numbers, strings and lists of them, but got "
        f"{type(value).__name__} at label {str(label)!r}. Give the choice string candidates instead."
    )
