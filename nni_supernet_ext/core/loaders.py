"""Look at a loader's batches without disturbing the training that uses it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Sampler

from nni_supernet_ext._compat.lightning_loops import combined_like
from nni_supernet_ext.core.own_generators import own_generators_seeded
from nni_supernet_ext.core.random_state import seeded_globals


def detached_batches(loader: Any, count: int, seed: int) -> Iterator[Any]:
    """Yield up to ``count`` batches, the same ones for the same seed, leaving all random state alone.

    A ``DataLoader`` over a map-style dataset is read through a loader of its own in this process and through copies
    of its samplers, so that persistent workers and running iterations of the original are not touched. Several
    loaders give a batch together, as in a training. Other loaders are iterated. Generators of the loader's, the
    samplers' and the data set's own are seeded meanwhile.

    Args:
        loader: Training loader.
        count: Most batches to yield.
        seed: Seed of shuffling and augmentation.

    Yields:
        Batches as the loader collates them, on the CPU.

    Example:
        >>> data = torch.utils.data.TensorDataset(torch.arange(6.0))
        >>> [len(x) for (x,) in detached_batches(DataLoader(data, batch_size=4), 2, seed=0)]
        [4, 2]
    """
    with seeded_globals(seed), own_generators_seeded(loader, seed):
        batches = list(islice(_batches(loader, seed), count))
    yield from batches


def _batches(loader: Any, seed: int) -> Iterator[Any]:
    """Iterate as Lightning does in a training: over several loaders side by side, in one batch."""
    if isinstance(loader, Mapping) or _holds_loaders(loader):
        loader = CombinedLoader(loader, "max_size_cycle")
    if not isinstance(loader, CombinedLoader):
        return iter(_own_loader(loader, seed))
    own = apply_to_collection(loader.iterables, DataLoader, _own_loader, seed)
    return (batch for batch, _, _ in combined_like(loader, own))


def _holds_loaders(value: Any) -> bool:
    """Tell a collection of loaders from an iterable of batches."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return any(isinstance(part, DataLoader) or _holds_loaders(part) for part in inner)


def _own_loader(loader: Any, seed: int) -> Any:
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    generator = torch.Generator().manual_seed(seed)
    batch_sampler: Any = loader.batch_sampler
    if batch_sampler is not None and type(batch_sampler) is not BatchSampler:
        if type(loader).__iter__ is not DataLoader.__iter__:
            return loader  # Its batch sampler may be made for that alone, an endless one for example.
        return DataLoader(
            loader.dataset,
            batch_sampler=_copied(batch_sampler),
            collate_fn=loader.collate_fn,
            generator=generator,
        )
    shuffled = isinstance(loader.sampler, RandomSampler)
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        shuffle=shuffled,
        sampler=None if shuffled else _copied(loader.sampler),
        collate_fn=loader.collate_fn,
        drop_last=loader.drop_last,
        generator=generator,
    )


def _copied(sampler: Any, known: dict[int, Any] | None = None) -> Any:
    """Copy a sampler and its containers, but no examples, so that counting or shuffling in it leaves no trace.

    Its generators are shared with the original; who reads batches puts them back.
    """
    known = {} if known is None else known
    if id(sampler) in known:
        return known[id(sampler)]
    try:
        copied = known[id(sampler)] = copy.copy(sampler)
    except TypeError:  # an iterator, for example
        return sampler
    for name, value in getattr(copied, "__dict__", {}).items():
        copied.__dict__[name] = _copied_part(value, known)
    return copied


def _copied_part(value: Any, known: dict[int, Any]) -> Any:
    if isinstance(value, Sampler):
        return _copied(value, known)
    if isinstance(value, (set, np.ndarray)):
        return value.copy()
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if not isinstance(value, (list, dict)):
        return value
    copied: Any = copy.copy(value)
    for place, item in enumerate(value) if isinstance(value, list) else value.items():
        copied[place] = _copied_part(item, known)
    return copied
