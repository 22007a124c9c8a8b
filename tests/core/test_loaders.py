"""Looking at a loader's batches disturbs nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

from nni_supernet_ext.core.loaders import detached_batches
from nni_supernet_ext.testing.training import RandomState

DATA = TensorDataset(torch.arange(12))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.arange(12))


def _loaders():
    generator = torch.Generator().manual_seed(1)
    yield "shuffled", DataLoader(DATA, batch_size=4, shuffle=True, generator=generator)
    yield "subset", DataLoader(DATA, batch_size=4, sampler=SubsetRandomSampler(range(12), generator=generator))
    weighted = WeightedRandomSampler([1.0] * 12, 12, generator=generator)
    yield "weighted", DataLoader(DATA, batch_size=4, sampler=weighted)
    yield "plain", DataLoader(DATA, batch_size=4)
    yield "stream", DataLoader(Stream(), batch_size=4)


@pytest.mark.parametrize(("name", "loader"), [pytest.param(*pair, id=pair[0]) for pair in _loaders()])
def test_same_seed_same_batches_and_no_state_changed(name, loader):
    generator = getattr(loader.sampler, "generator", None) if name != "stream" else None
    state = generator.get_state() if generator is not None else None
    before = RandomState()
    first = [batch[0] if isinstance(batch, list) else batch for batch in detached_batches(loader, 2, seed=5)]
    second = [batch[0] if isinstance(batch, list) else batch for batch in detached_batches(loader, 2, seed=5)]
    assert RandomState() == before
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in second]
    assert len(first) == 2
    if generator is not None:
        assert torch.equal(generator.get_state(), state)


def test_augmentation_by_any_library_is_repeatable():
    def noisy(items):
        return torch.tensor([float(np.random.rand()), random.random(), float(torch.rand(()))])

    loader = DataLoader(DATA, batch_size=4, collate_fn=noisy)
    first, second = (list(detached_batches(loader, 3, seed=2)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
