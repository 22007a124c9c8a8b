"""A sampler that remembers which examples it handed out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import (
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
)

from nni_supernet_ext.errors import DataError

Indices = NDArray[np.int64]
Draw = Callable[[int], Indices | None]
"""Draws that many indices for the coming epoch; None leaves the epoch to the user's own sampler."""


class RecordedOrder(DistributedSampler[Any]):
    """Hand out an epoch's examples, drawn or in the user's own order, and tell which came in which step.

    A loader returns its batches in the order in which their indices were handed out, however many workers read
    ahead, so a step's examples are the next ones of the record. It derives from DistributedSampler so that the
    trainer does not put one of its own in its place; each rank gets its share of the epoch.

    Args:
        sampler: The user's own sampler.
        dataset: The dataset, whose length must not change.
        draw: Draws the indices of all ranks for an epoch.
    """

    def __init__(self, sampler: Sampler[int], dataset: Any, draw: Draw) -> None:
        self._own, self._data, self._draw = sampler, dataset, draw
        self.size = len(dataset)
        self._support = _known_support(sampler, self.size)
        self._record: list[int] | None = None
        self._position = 0
        self._shard()

    def set_epoch(self, epoch: int) -> None:
        """Take the trainer's epoch, and pass it on to the user's own sampler."""
        super().set_epoch(epoch)
        forward = getattr(self._own, "set_epoch", None)
        if forward is not None:
            forward(epoch)

    def __len__(self) -> int:
        """Return how many examples of an epoch are this rank's."""
        self._shard()
        return super().__len__()

    def __iter__(self) -> Iterator[Any]:
        """Start an epoch."""
        if len(self._data) != self.size:
            raise DataError(
                f"The training dataset is expected to keep its {self.size} examples, but got {len(self._data)} "
                "at the start of an epoch, so the examples' gradient norms belong to nothing. Keep the length "
                "fixed during a run, or leave the data slot empty."
            )
        self._shard()
        self._support = self.support
        drawn = self._draw(self.total_size)
        self._record, self._position = [], 0
        if drawn is not None:
            return self._recorded(
                drawn[self.rank : self.total_size : self.num_replicas].tolist(), self._record
            )
        return self._recorded(self._user_order(), self._record)

    @property
    def support(self) -> Indices:
        """Examples that the user's own sampler can hand out, as far as known, sorted."""
        if self._record is None or isinstance(self._own, _KNOWN):
            return self._support
        # What a sampler of unknown kind never hands out may be held out on purpose.
        return np.union1d(self._support, np.asarray(self._record, dtype=np.int64))

    @support.setter
    def support(self, indices: Indices) -> None:
        self._support = np.union1d(self._support, indices)

    def take(self, count: int) -> Indices:
        """Return the examples of the next step: up to ``count``, fewer in an epoch's last batch."""
        if self._record is None:
            raise DataError(
                "The training loader is expected to be iterated as the data slot built it, but got another one: "
                "its sampler was never asked. Leave `overfit_batches` and plugins that rebuild loaders out."
            )
        taken = self._record[self._position : self._position + count]
        self._position += len(taken)
        return np.asarray(taken, dtype=np.int64)

    def _shard(self) -> None:
        """Take this process's share; the processes meet only after the loader was built."""
        together = dist.is_available() and dist.is_initialized()
        epoch = getattr(self, "epoch", 0)
        super().__init__(
            range(len(self._own)),  # type: ignore[arg-type]
            num_replicas=dist.get_world_size() if together else 1,
            rank=dist.get_rank() if together else 0,
            shuffle=isinstance(self._own, RandomSampler),
            # The trainer's own seed of a sharded loader, so that both give the same order.
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
        )
        self.epoch = epoch

    @staticmethod
    def _recorded(order: Iterable[int], record: list[int]) -> Iterator[int]:
        # One by one: asking a user's sampler for more than the training does would advance its random numbers.
        for index in order:
            record.append(index)
            yield index

    def _user_order(self) -> Iterable[int]:
        if self.num_replicas == 1:
            return (_checked(index) for index in self._own)
        if isinstance(self._own, (RandomSampler, SequentialSampler)) and len(self._own) == self.size:
            return super().__iter__()
        order = [_checked(index) for index in self._own]
        self._support = np.union1d(self._support, np.asarray(order, dtype=np.int64))
        repeated = order * math.ceil(self.total_size / len(order))
        return repeated[self.rank : self.total_size : self.num_replicas]


_KNOWN = (RandomSampler, SequentialSampler, SubsetRandomSampler)


def _known_support(sampler: Sampler[int], size: int) -> Indices:
    """Return the examples a sampler can hand out; none yet for a sampler of unknown kind."""
    if isinstance(sampler, SubsetRandomSampler):
        return np.unique(np.asarray(list(sampler.indices), dtype=np.int64))
    if isinstance(sampler, (RandomSampler, SequentialSampler)):
        return np.arange(size, dtype=np.int64)
    return np.zeros(0, dtype=np.int64)


def _checked(index: Any) -> int:
    try:
        return index.__index__()
    except (AttributeError, TypeError):
        raise DataError(
            f"The training loader's sampler is expected to yield integers, but got {index!r}. Use a sampler of "
            "dataset indices."
        ) from None
