"""Several validation loaders: how many there are, and whether the evaluator's module can tell them apart."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from pytorch_lightning.utilities import CombinedLoader


def count_loaders(loaders: Any) -> int:
    """Count what Lightning takes for validation loaders: one, or a collection of them.

    Example:
        >>> count_loaders([[1, 2], [3]]), count_loaders({'clean': [1], 'noisy': [2]}), count_loaders(range(3))
        (2, 2, 1)
    """
    if isinstance(loaders, CombinedLoader):
        return len(loaders.flattened)
    return len(loaders) if isinstance(loaders, (list, tuple, dict)) else 1


def loader_problems(training_module: Any, count: int) -> Iterable[str]:
    """Yield that a module cannot tell several validation loaders apart, which Lightning asks it to.

    Args:
        training_module: The evaluator's Lightning module.
        count: How many loaders there are.
    """
    if count < 2 or _takes_index(training_module.validation_step):
        return
    yield (
        f"`validation_step` of {type(training_module).__name__} is expected to take `dataloader_idx` with {count} "
        "validation loaders, but got one without it (NNI's own modules have none). Add the argument, or join the "
        "data sets by torch.utils.data.ConcatDataset."
    )


def suffix_of(count: int, index: int) -> str:
    """Return what Lightning appends to the name of a metric of one of several loaders."""
    return f"/dataloader_idx_{index}" if count > 1 else ""


def _takes_index(step: Any) -> bool:
    parameters = inspect.signature(step).parameters.values()
    return any(p.name == "dataloader_idx" or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
