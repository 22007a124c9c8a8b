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

    Of a sampler of the user's own kind it keeps the number of examples, the examples that it leaves out and its
    ``set_epoch``; its order gives way. One that hands examples out unequally often decides frequencies, which have
    one owner.

    Args:
        sampler: The user's own sampler.
        dataset: The dataset, whose length must not change.
        draw: Draws the indices of all ranks for an epoch.
    """

    def __init__(self, sampler: Sampler[int], dataset: Any, draw: Draw) -> None:
        self._own, self._data, self._draw = sampler, dataset, draw
        self.size = len(dataset)
        self._support = _known_support(sampler, self.size)
        self._known = type(sampler) in _KNOWN
        self.uneven = False
        self._users: list[int] | None = None
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
        self.look_back()
        drawn = self._draw(self.total_size)
        if drawn is not None:
            self._refuse_uneven()
        self._record, self._position = [], 0
        if drawn is not None:
            return self._recorded(drawn[self.rank : self.total_size : self.num_replicas].tolist(), self._record)
        if self.num_replicas == 1:
            self._users = self._record
        return self._recorded(self._user_order(), self._record)

    @property
    def support(self) -> Indices:
        """Examples that may be drawn, sorted: all that the user's own sampler can hand out, as far as known."""
        self.look_back()
        return self._support

    @support.setter
    def support(self, indices: Indices) -> None:
        self._support = np.union1d(self._support, indices)

    def look_back(self) -> None:
        """Learn from what a sampler of unknown kind has handed out; `uneven` says whether some more often."""
        if self._users is None or self._known:
            return
        counts = np.bincount(np.asarray(self._users, dtype=np.int64), minlength=self.size)
        handed = np.flatnonzero(counts)
        # What an epoch that was cut short did not ask for may have made them equal.
        unasked = max(self._length - len(self._users), 0)
        self.uneven = self.uneven or int((counts.max(initial=0) - counts[handed]).sum()) > unasked
        if self._length >= self.size and not (counts > 1).any():
            # It goes through the whole dataset; only a batch that was dropped may be missing.
            handed = np.arange(self.size)
        # What it never hands out may be held out on purpose.
        self.support = handed

    def follow(self, previous: RecordedOrder) -> None:
        """Go on in a run whose loader was loaded again, with what was learned of a sampler of unknown kind.

        Raises:
            DataError: The dataset has another length.
        """
        if previous.size != self.size:
            raise DataError(
                f"The training dataset is expected to keep its {previous.size} examples, but got {self.size} after "
                "reloading. Keep the length fixed during a run, or leave the data slot empty."
            )
        if not self._known:
            self.support = previous.support
            self.uneven = previous.uneven

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

    @property
    def _length(self) -> int:
        return len(self._own)  # type: ignore[arg-type]

    def _shard(self) -> None:
        """Take this process's share; the processes meet only after the loader was built."""
        together = dist.is_available() and dist.is_initialized()
        epoch = getattr(self, "epoch", 0)
        super().__init__(
            range(self._length),  # type: ignore[arg-type]
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
            return (_checked(index, self.size) for index in self._own)
        if self._known and not isinstance(self._own, SubsetRandomSampler) and self._length == self.size:
            return super().__iter__()
        order = self._users = [_checked(index, self.size) for index in self._own]
        repeated = order * math.ceil(self.total_size / len(order))
        return repeated[self.rank : self.total_size : self.num_replicas]

    def _refuse_uneven(self) -> None:
        if self.uneven:
            raise DataError(
                "The training loader's sampler is expected to hand out every example equally often, but got "
                f"{type(self._own).__name__}, which repeats some: the frequencies of the examples have one owner. "
                "Use `shuffle=True`, or leave the data slot empty."
            )


_KNOWN = (RandomSampler, SequentialSampler, SubsetRandomSampler)


def _known_support(sampler: Sampler[int], size: int) -> Indices:
    """Return the examples a sampler can hand out; none yet for a sampler of unknown kind."""
    if type(sampler) is SubsetRandomSampler:
        return np.unique(np.asarray(list(sampler.indices), dtype=np.int64))
    if type(sampler) in _KNOWN:
        return np.arange(size, dtype=np.int64)
    return np.zeros(0, dtype=np.int64)


def _checked(index: Any, size: int) -> int:
    try:
        place: int = index.__index__()
    except (AttributeError, TypeError):
        place = -1
    if not 0 <= place < size:
        raise DataError(
            f"The training loader's sampler is expected to yield integers from 0 to {size - 1}, but got {index!r}. "
            "Use a sampler of dataset indices."
        )
    return place
