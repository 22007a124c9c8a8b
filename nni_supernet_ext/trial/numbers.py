"""Metrics as plain numbers, which is what NNI's records and pages can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_supernet_ext.errors import ConfigurationError


def plain_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Turn tensors and arrays of one element into numbers.

    Args:
        metrics: Name -> value, with ``default``: NNI's tuners and assessors end the experiment where it is missing.

    Returns:
        The same names with ints as they are and floats for everything else.

    Raises:
        ConfigurationError: A value is no number, or ``default`` is missing.

    Example:
        >>> import torch
        >>> plain_numbers({"default": torch.tensor(0.5), "parameters": 310})
        {'default': 0.5, 'parameters': 310}
    """
    if not isinstance(metrics, Mapping) or "default" not in metrics:
        raise ConfigurationError(
            f"Argument `metrics` is expected to hold `default`, which NNI compares, but got {metrics!r}. Add it, "
            "for example `{'default': accuracy, 'loss': loss}`."
        )
    return {str(name): _number(name, value) for name, value in metrics.items()}


def _number(name: str, value: Any) -> float:
    if isinstance(value, int):
        return int(value)
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigurationError(
            f"Argument `metrics` is expected to hold numbers, but got {value!r} for {name!r}. Leave it out, or "
            "turn it into a number."
        ) from None
