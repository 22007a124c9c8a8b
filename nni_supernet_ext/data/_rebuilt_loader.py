"""Rebuild a user's loader with another sampler, and refuse the loaders that this would change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nni.nas.evaluator.pytorch import DataLoader as TracedDataLoader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    Sampler,
    WeightedRandomSampler,
)

from nni_supernet_ext.core.plan import Plan

_SETTINGS = (
    "batch_size",
    "num_workers",
    "collate_fn",
    "pin_memory",
    "drop_last",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "generator",
    "prefetch_factor",
    "persistent_workers",
)


def rebuilt_loader(loader: DataLoader[Any], sampler: Sampler[int]) -> DataLoader[Any]:
    """Make a loader equal to another one but for its sampler.

    Args:
        loader: Loader without refusals.
        sampler: Sampler of the new loader.

    Returns:
        A plain loader that shares dataset, collation and random generator with the given one.

    Example:
        >>> import torch
        >>> from torch.utils.data import SequentialSampler, TensorDataset
        >>> data = TensorDataset(torch.arange(4.0))
        >>> loader = rebuilt_loader(DataLoader(data, batch_size=3, shuffle=True), SequentialSampler(data))
        >>> [batch.tolist() for (batch,) in loader]
        [[0.0, 1.0, 2.0], [3.0]]
    """
    settings = {name: getattr(loader, name) for name in _SETTINGS}
    if getattr(loader, "pin_memory_device", ""):
        settings["pin_memory_device"] = loader.pin_memory_device
    # NNI wants loaders of its own kind, which differ from torch's only in remembering their arguments.
    return TracedDataLoader(loader.dataset, sampler=sampler, **settings)


def known_loader_problems(plan: Plan) -> Iterator[str]:
    """Yield the problems of a run's training loader, as far as there is one yet.

    Args:
        plan: The run.
    """
    if plan.datamodule is not None and plan.optimizer is None:
        return  # Lightning sets a data module up only when training starts: before the second round of checks.
    yield from loader_problems(plan.train_loader())


def loader_problems(loader: Any) -> Iterator[str]:
    """Yield why a loader cannot be rebuilt with another sampler, each with its remedy."""
    if not isinstance(loader, DataLoader):
        yield (
            f"The training loader is expected to be one torch DataLoader, but got {type(loader).__name__}. Give "
            "the evaluator a DataLoader over a dataset with a length, or leave the data slot empty."
        )
        return
    if isinstance(loader.dataset, IterableDataset):
        yield (
            "The training dataset is expected to be indexable, but got the iterable dataset "
            f"{type(loader.dataset).__name__}, whose examples cannot be chosen. Use a map-style dataset, or "
            "leave the data slot empty."
        )
        return
    yield from _batch_problems(loader)
    if not hasattr(loader.sampler, "__len__"):
        yield (
            "The training loader's sampler is expected to have a length, but got "
            f"{type(loader.sampler).__name__} without `__len__`, so an epoch has no known end. Add it, or use "
            "`shuffle=True`."
        )
    if isinstance(loader.sampler, WeightedRandomSampler):
        yield (
            "The training loader's sampler is expected to leave the distribution of the examples free, but got "
            "WeightedRandomSampler. Use `shuffle=True`: the importance sampler owns the distribution."
        )
    if isinstance(loader.sampler, DistributedSampler):
        yield (
            "The training loader's sampler is expected to be that of a single process, but got "
            "DistributedSampler. Use `shuffle=True`: the importance sampler gives each rank its share itself."
        )


def _batch_problems(loader: DataLoader[Any]) -> Iterator[str]:
    if loader.batch_size is None or type(loader.batch_sampler) is not BatchSampler:
        found = "`batch_size=None`" if loader.batch_sampler is None else type(loader.batch_sampler).__name__
        yield (
            f"The training loader is expected to form its batches from `batch_size`, but got {found}, which "
            "would be lost. Give `batch_size`, and `shuffle` or a `sampler`, instead of a batch sampler."
        )
    if type(loader).__iter__ is not DataLoader.__iter__:
        yield (
            f"The training loader is expected to iterate as a DataLoader, but got {type(loader).__name__} with "
            "an `__iter__` of its own, which would be lost. Move its work into the dataset or `collate_fn`."
        )
    if not getattr(loader, "in_order", True):
        yield (
            "The training loader is expected to return its batches in order, but got `in_order=False`, so "
            "outputs could not be told apart. Use `in_order=True`."
        )
