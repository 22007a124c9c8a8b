"""Settings by search space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_supernet_ext.errors import ConfigurationError


def settings_of(space: str, settings: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the settings of a space, or say which spaces there are."""
    if space not in settings:
        raise ConfigurationError(
            f"Argument `space` is expected to be one of {list(settings)}, but got {space!r}. Use one of them, or "
            "settings of your own."
        )
    return settings[space]
