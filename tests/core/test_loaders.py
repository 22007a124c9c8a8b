"""Looking at a loader's batches disturbs nothing."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

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


# --- generators, counters and orders of a loader's own parts


class OwnBatches:
    """Shuffle with a generator of its own, batch by batch, without torch's base class."""

    def __init__(self, rng: Any) -> None:
        self.rng = rng

    def __iter__(self):
        order = list(range(12))
        self.rng.shuffle(order)
        return iter([order[:4], order[4:8], order[8:]])

    def __len__(self):
        return 3


class Reshuffled(Sampler):
    """Shuffle what the last pass left, and count the passes."""

    def __init__(self) -> None:
        self.buckets, self.passes, self.rng = [list(range(6)), list(range(6, 12))], 0, random.Random(2)

    def __iter__(self):
        self.passes += 1
        for bucket in self.buckets:
            self.rng.shuffle(bucket)
        return iter([self.passes % 12, *self.buckets[0], *self.buckets[1][1:]])

    def __len__(self):
        return 12


class Wrapped:
    """Hand on the batches of another batch sampler, as wrappers for distributed training do."""

    def __init__(self, inner: Any) -> None:
        self.sampler = inner

    def __iter__(self):
        batch = list(self.sampler)
        return iter([batch[:4], batch[4:8]])

    def __len__(self):
        return 2


class Noisy(Dataset):
    """Add noise from a generator of its own."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.tensor(index + float(self.draw()))


class Transform:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(4)

    def __call__(self):
        return self.rng.normal()


class NoisyStream(IterableDataset):
    def __init__(self) -> None:
        self.rng = np.random.RandomState(3)

    def __iter__(self):
        return iter(torch.from_numpy(self.rng.normal(size=12)))


def _normal(generator: torch.Generator) -> float:
    return float(torch.randn((), generator=generator))


def _with_own_state():
    yield "numpy batch sampler", lambda: DataLoader(DATA, batch_sampler=OwnBatches(np.random.default_rng(1)))
    yield "python batch sampler", lambda: DataLoader(DATA, batch_sampler=OwnBatches(random.Random(1)))
    yield "legacy batch sampler", lambda: DataLoader(DATA, batch_sampler=OwnBatches(np.random.RandomState(1)))
    yield "sampler with an order", lambda: DataLoader(DATA, batch_size=4, sampler=Reshuffled())
    yield "sampler in a batch sampler", lambda: DataLoader(DATA, batch_sampler=Wrapped(Reshuffled()))
    yield "transform", lambda: DataLoader(Noisy(Transform()), batch_size=4, shuffle=True)
    yield "subset", lambda: DataLoader(Subset(Noisy(np.random.default_rng(7).normal), range(9)), batch_size=4)
    yield "method", lambda: DataLoader(Noisy(np.random.RandomState(7).normal), batch_size=4)
    yield "python method", lambda: DataLoader(Noisy(random.Random(7).random), batch_size=4)
    yield "partial", lambda: DataLoader(Noisy(partial(_normal, torch.Generator())), batch_size=4)
    yield "no batches", lambda: DataLoader(Noisy(Transform()), batch_size=None)
    yield "stream", lambda: DataLoader(NoisyStream(), batch_size=4, generator=torch.Generator())
    yield "list", lambda: [DataLoader(Noisy(Transform()), batch_size=4)]


def _read(batches: Any) -> list[Any]:
    return [_read(part) if isinstance(part, (list, DataLoader)) else part.tolist() for part in batches]


@pytest.mark.parametrize(("name", "make"), [pytest.param(*pair, id=pair[0]) for pair in _with_own_state()])
def test_own_generators_and_counters_do_not_notice(name, make):
    untouched, watched = make(), make()
    torch.manual_seed(3)
    expected = [_read(untouched), _read(untouched)]
    torch.manual_seed(3)
    found = [_read(watched)]
    looked = [list(detached_batches(watched, 2, seed=5)) for _ in range(2)]
    found.append(_read(watched))
    assert found == expected
    if name != "list":  # whose items are the loaders themselves
        assert _read(looked[0]) == _read(looked[1])


def test_batches_of_one_seed_are_the_same_at_any_time_of_the_training():
    loader = DataLoader(Noisy(Transform()), batch_sampler=OwnBatches(np.random.default_rng(1)))
    before = _read(detached_batches(loader, 3, seed=5))
    assert before != _read(loader)
    assert _read(detached_batches(loader, 3, seed=5)) == before
    assert _read(detached_batches(loader, 3, seed=6)) != before


def test_a_legacy_generator_keeps_the_number_it_has_in_store():
    rng = np.random.RandomState(0)
    loader = DataLoader(Noisy(rng.normal), batch_size=3)
    rng.normal()  # drawn in pairs
    list(detached_batches(loader, 1, seed=5))
    assert [rng.normal(), rng.normal()] == np.random.RandomState(0).normal(size=3)[1:].tolist()


def test_other_bit_generators_and_those_without_state_are_read():
    legacy = np.random.RandomState(np.random.PCG64(1))
    for draw in (legacy.normal, np.random.Generator(np.random.SFC64(1)).normal, random.SystemRandom().random):
        assert len(list(detached_batches(DataLoader(Noisy(draw), batch_size=4), 2, seed=1))) == 2
    assert legacy.normal() == np.random.RandomState(np.random.PCG64(1)).normal()


def test_a_loader_that_iterates_in_its_own_way_is_iterated():
    class Own(DataLoader):
        """Iterate as loaders do that keep their workers between epochs."""

        def __iter__(self):
            return iter([torch.zeros(1)] * 3)

    assert len(list(detached_batches(Own(DATA, batch_sampler=OwnBatches(random.Random(1))), 9, seed=0))) == 3


def test_parts_that_hold_each_other_are_looked_through_once():
    sampler = Reshuffled()
    sampler.parent = sampler
    loader = DataLoader(DATA, batch_size=4, sampler=sampler)
    assert len(list(detached_batches(loader, 2, seed=0))) == 2
    assert sampler.passes == 0


@pytest.mark.parametrize("mode", ["max_size_cycle", "min_size"])
def test_several_loaders_give_a_batch_together_as_in_a_training(mode):
    generator = torch.Generator().manual_seed(1)
    long = DataLoader(DATA, batch_size=4, shuffle=True, generator=generator)
    loaders = {"short": DataLoader(DATA, batch_size=6), "long": long}
    state = generator.get_state()
    combined = CombinedLoader(loaders, mode)
    given = loaders if mode == "max_size_cycle" else combined  # what Lightning makes of loaders
    batches = list(detached_batches(given, 9, seed=5))
    assert [sorted(batch) for batch in batches] == [["long", "short"]] * len(list(combined))
    assert [batch["short"][0].tolist() for batch in batches] == [
        batch["short"][0].tolist() for batch, _, _ in combined
    ]
    generator.set_state(state)
    again = list(detached_batches(given, 9, seed=5))
    assert [batch["long"][0].tolist() for batch in again] == [batch["long"][0].tolist() for batch in batches]
    assert torch.equal(generator.get_state(), state)
    listed = [DataLoader(DATA, batch_size=6), DataLoader(DATA, batch_size=6)]
    assert [len(batch) for batch in detached_batches(listed, 9, seed=5)] == [2, 2]
    batches_alone = [[torch.zeros(2)], [torch.ones(2)]]
    assert list(detached_batches(batches_alone, 1, seed=5)) == batches_alone[:1]
