"""Whether the tensors behind a loader are as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


class DataContents:
    """Hash the tensors and arrays that the data sets behind some loaders hold, to be compared later.

    Args:
        loaders: A loader, or loaders in lists and mappings. What a data set reads from files is not looked at.

    Example:
        >>> from nni_supernet_ext.testing import toy_evaluator
        >>> loader = toy_evaluator().train_dataloaders
        >>> contents = DataContents(loader)
        >>> _ = loader.dataset.tensors[0].mul_(0.5)
        >>> contents.changed()
        1
    """

    def __init__(self, loaders: Any) -> None:
        self._before = [(value, _hash(value)) for value in _values(loaders, set())]

    def changed(self) -> int:
        """Return how many of them hold other values now."""
        return sum(_hash(value) != before for value, before in self._before)


def _values(found: Any, seen: set[int]) -> Iterator[Tensor | np.ndarray]:
    """Yield the tensors and arrays within a loader or a data set, each once."""
    if id(found) in seen:
        return
    seen.add(id(found))
    if isinstance(found, Tensor) or (isinstance(found, np.ndarray) and not found.dtype.hasobject):
        yield found
    elif isinstance(found, (list, tuple)):
        for item in found:
            yield from _values(item, seen)
    elif isinstance(found, Mapping):
        yield from _values(list(found.values()), seen)
    elif isinstance(found, Dataset):
        yield from _values(list(vars(found).values()), seen)
    elif hasattr(found, "dataset"):
        yield from _values(found.dataset, seen)


def _hash(value: Tensor | np.ndarray) -> str:
    tensor = torch.as_tensor(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value.detach()
    return hashlib.sha256(tensor.cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
