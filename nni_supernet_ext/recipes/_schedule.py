"""The callbacks of recipes: a learning rate where they have none of their own, and the user's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.recipes._linear_lr import LinearLR


def scheduled(schedule: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Put the callback of a schedule in front of the user's."""
    if schedule not in ("linear", "cosine", None):
        raise ConfigurationError(
            f"Argument `schedule` is expected to be 'linear', 'cosine' or None, but got {schedule!r}. Use None "
            "with a scheduler or callback of your own."
        )
    own: list[Any] = []
    if schedule == "linear":
        own.append(LinearLR())
    elif schedule == "cosine":
        own.append(CosineLR())
    return with_callbacks(own, settings)


def with_callbacks(own: list[Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Put a recipe's callbacks in front of the user's; what holds none is left for the strategy to refuse."""
    given = settings.get("callbacks", [])
    return {**settings, "callbacks": [*own, *given] if isinstance(given, Iterable) else given}
