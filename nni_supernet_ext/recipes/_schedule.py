"""The learning rate of recipes without one of their own."""

from __future__ import annotations

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
    return {**settings, "callbacks": [*own, *settings.get("callbacks", [])]}
