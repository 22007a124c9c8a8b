"""The results of a whole training: its epochs hold those of single subnets too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_LOADER = re.compile(r"(.*?)(/dataloader_idx_\d+)?", re.DOTALL)


def without_subnets(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what an epoch reports of single fixed subnets: each name would be an axis of the page.

    They are named ``<metric>/<subnet>`` after a metric that is there too; a metric's own name may hold slashes.

    Args:
        metrics: Name -> value of an epoch.

    Example:
        >>> without_subnets({'default': 0.5, 'val/acc': 0.5, 'val/acc/smallest': 0.4})
        {'default': 0.5, 'val/acc': 0.5}
    """
    return {name: value for name, value in metrics.items() if not _of_a_subnet(name, metrics)}


def _of_a_subnet(name: str, metrics: Mapping[str, Any]) -> bool:
    match = _LOADER.fullmatch(name)
    assert match is not None
    stem, loader = match[1], match[2] or ""
    return any(stem[: slash.start()] + loader in metrics for slash in re.finditer("/", stem))
