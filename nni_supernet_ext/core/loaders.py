"""Look at a loader's batches without disturbing the training that uses it."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler


def detached_batches(loader: Any, count: int, seed: int) -> Iterator[Any]:
    """Yield up to ``count`` batches, the same ones for the same seed, leaving all random state alone.

    A ``DataLoader`` over a map-style dataset is read through a loader of its own in this process, so that
    persistent workers and running iterations of the original are not touched. Other loaders are iterated.

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
    with isolate_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        batches = list(islice(iter(_own_loader(loader, seed)), count))
    yield from batches


def _own_loader(loader: Any, seed: int) -> Any:
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    if type(loader.batch_sampler) is not BatchSampler:
        return loader
    generator = torch.Generator().manual_seed(seed)
    shuffled = isinstance(loader.sampler, RandomSampler)
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        shuffle=shuffled,
        sampler=None if shuffled else _own_sampler(loader.sampler, seed),
        collate_fn=loader.collate_fn,
        drop_last=loader.drop_last,
        generator=generator,
    )


def _own_sampler(sampler: Any, seed: int) -> Any:
    """Copy a sampler that draws from a generator of its own, so that the original is not advanced."""
    if not isinstance(getattr(sampler, "generator", None), torch.Generator):
        return sampler
    copied = copy.copy(sampler)
    copied.generator = torch.Generator().manual_seed(seed)
    return copied
