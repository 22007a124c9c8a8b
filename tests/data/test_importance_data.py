"""Data importance sampling: which example is which, averaged bounds, frequencies, rebuilt loaders, refusals."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning
from pytorch_lightning import LightningDataModule
from scipy.stats import chisquare
from torch.utils.data import (
    BatchSampler,
    Dataset,
    IterableDataset,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from nni_supernet_ext.callbacks import GradientVariance
from nni_supernet_ext.core import SupernetCallback
from nni_supernet_ext.data import ImportanceDataSampler
from nni_supernet_ext.data._example_norms import ExampleNorms
from nni_supernet_ext.data._rebuilt_loader import rebuilt_loader
from nni_supernet_ext.data._recorded_order import RecordedOrder
from nni_supernet_ext.errors import CheckpointError, ConfigurationError, DataError, TrainingDivergedError
from nni_supernet_ext.testing import MethodCase
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.testing.toys import toy_data, toy_evaluator
from nni_supernet_ext.testing.training import differing, train


class Numbered(Dataset[Any]):
    """Toy images that carry their own index in the first pixel."""

    def __init__(self, n: int = 40) -> None:
        self.images, self.labels = toy_data(n).tensors
        self.images[:, 0, 0, 0] = torch.arange(n)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        return self.images[index], self.labels[index]


class Watch(SupernetCallback):
    """Compare the record with what the batches really hold, and keep every example's bounds by a slow loop."""

    def __init__(self, data: ImportanceDataSampler) -> None:
        self.data = data
        self.batches: list[list[int]] = []
        self.bounds: dict[int, list[float]] = {}

    def on_draws(self, state: Any) -> None:
        self.batches.append([round(float(image[0, 0, 0])) for image in state.batch[0]])
        assert self.data._current.tolist() == self.batches[-1]

    def on_after_draw(self, state: Any) -> None:
        for index, bound in zip(self.batches[-1], self.data._waiting[-1][1].tolist(), strict=True):
            self.bounds.setdefault(index, []).append(bound)


def _case(dataset: Any, **loader: Any) -> MethodCase:
    def evaluator(max_epochs: int = 2, *, root: Any = ".", **arguments: Any) -> Lightning:
        made = toy_evaluator(max_epochs, root=root, **arguments)
        settings = {"batch_size": 16, "shuffle": "sampler" not in loader, **loader}
        made.train_dataloaders = DataLoader(dataset, generator=torch.Generator().manual_seed(3), **settings)
        return made

    return MethodCase("case", dict, evaluator=evaluator)


@pytest.mark.parametrize(
    "loader",
    [
        {},
        {"drop_last": True},
        {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 3},
        {"num_workers": 2, "drop_last": True},
    ],
)
def test_every_output_finds_its_example(tmp_path: Path, loader: dict[str, Any]) -> None:
    data = ImportanceDataSampler(tau=0.7)
    watch = Watch(data)
    train(_case(Numbered(), **loader), {"data": data, "callbacks": [watch]}, tmp_path, epochs=3)
    per_epoch = 2 if loader.get("drop_last") else 3
    assert len(watch.batches) == 3 * per_epoch
    sizes = [len(batch) for batch in watch.batches[:per_epoch]]
    assert sizes == [16, 16, 8][:per_epoch]
    first = [index for batch in watch.batches[:per_epoch] for index in batch]
    assert len(set(first)) == len(first), "the first epoch is the user's own, without repeats"
    later = [index for batch in watch.batches[per_epoch:] for index in batch]
    assert len(set(later)) < len(later), "later epochs draw with replacement"


def test_part_of_the_epochs_batches(tmp_path: Path) -> None:
    data = ImportanceDataSampler(tau=0.7)
    watch = Watch(data)
    case = _case(Numbered())
    train(
        case,
        {"data": data, "callbacks": [watch]},
        tmp_path,
        epochs=3,
        evaluator_arguments={"limit_train_batches": 2},
    )
    assert [len(batch) for batch in watch.batches] == [16] * 6


def test_bounds_are_averaged_over_repeats_and_unseen_examples_keep_theirs(tmp_path: Path) -> None:
    data = ImportanceDataSampler(tau=0.7)
    epochs: list[dict[int, list[float]]] = []

    class Epochs(Watch):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            epochs.append(self.bounds)
            self.bounds = {}

    train(_case(Numbered()), {"data": data, "callbacks": [Epochs(data)]}, tmp_path, epochs=2)
    data._norms.close()
    expected = {i: float(np.mean(bounds)) for i, bounds in epochs[0].items()}
    expected |= {i: float(np.mean(bounds)) for i, bounds in epochs[1].items()}
    assert len(epochs[1]) < 40 and any(len(bounds) > 1 for bounds in epochs[1].values())
    np.testing.assert_allclose(data._norms.estimate, [expected[i] for i in range(40)], rtol=1e-6)


def _one_rank(values: Any, operation: str) -> Any:
    return values


def test_distribution_by_hand() -> None:
    norms = ExampleNorms(4, by_class=False, keep=True)
    norms.add(np.array([0, 0, 1, 3]), np.array([1.0, 3.0, 4.0, 0.0]), None, _one_rank)
    norms.close()
    # Bounds 2, 4, never measured: the mean 2, and 0.
    p = norms.distribution(np.arange(4), 0.5)
    np.testing.assert_allclose(p, [2 / 8 / 2 + 1 / 8, 4 / 8 / 2 + 1 / 8, 2 / 8 / 2 + 1 / 8, 1 / 8])
    norms.add(np.array([1]), np.array([1.0]), None, _one_rank)
    norms.close()
    np.testing.assert_allclose(norms.estimate[[0, 1, 3]], [2.0, 1.0, 0.0])
    zero = ExampleNorms(2, by_class=False, keep=False)
    for index in (0, 1):
        zero.add(np.array([index]), np.array([1.0]), None, _one_rank)
        zero.close()
    assert zero.distribution(np.arange(2), 0.5).tolist() == [0.25, 0.75]


def test_distribution_per_class_by_hand() -> None:
    norms = ExampleNorms(4, by_class=True, keep=True)
    norms.add(np.array([0, 1, 2, 3, 3]), np.array([1.0, 2.0, 3.0, 5.0, 7.0]), np.array([0, 0, 0, 1, 1]), _one_rank)
    norms.close()
    # Class 0: mean 2 over three examples; class 1: mean 6, one example.
    p = norms.distribution(np.arange(4), 0.5)
    first = (0.5 * 2 / 8 + 0.5 * 3 / 4) / 3
    np.testing.assert_allclose(p, [first, first, first, 0.5 * 6 / 8 + 0.5 / 4])
    np.testing.assert_allclose(norms.distribution(np.arange(4), 0.0), 0.25)


def test_unseen_examples_keep_their_share_and_ignored_ones_are_a_class_of_bound_zero() -> None:
    """Ten examples: 0-3 of class 0 with bound 3, 4-5 of class 1 with bound 1, 6-7 ignored, 8-9 never seen."""
    support = np.arange(10)
    for keep in (True, False):
        norms = ExampleNorms(10, by_class=True, keep=keep)
        bounds, labels = [3.0] * 4 + [1.0] * 2 + [0.0] * 2, np.array([0] * 4 + [1] * 2 + [-100] * 2)
        norms.add(np.arange(8), bounds, labels, lambda array, how: array)
        norms.close()
        found = norms.distribution(support, 0.9)
        # Of the share of the classes 9/10 goes by their mean bounds (3 to 1 to 0), 1/10 by their numbers.
        share, seen = (0.8, 8) if keep else (1.0, 10)
        expected = [share * (0.9 * 3 / 4 + 0.1 * 4 / seen) / 4] * 4 + [
            share * (0.9 * 1 / 4 + 0.1 * 2 / seen) / 2
        ] * 2
        expected += [share * 0.1 * 2 / seen / 2] * 2 + ([0.1] * 2 if keep else [0.1 * 2 / 10 / 2] * 2)
        assert sum(expected) == pytest.approx(1.0)
        assert found == pytest.approx(np.array(expected))


def test_a_class_that_changes_is_the_last_one() -> None:
    norms = ExampleNorms(3, by_class=True, keep=True)
    for labels in ([5, 1, 2], [0, 4, -100]):
        norms.add(np.arange(3), [1.0, 2.0, 0.0], np.array(labels), lambda array, how: array)
    assert norms.labels.tolist()[:2] == [0, 4] and norms.labels[2] < 0


def test_classes_are_learned_from_the_batches(tmp_path: Path) -> None:
    dataset = Numbered()
    data = ImportanceDataSampler(tau=0.7, granularity="class")
    train(_case(dataset), {"data": data}, tmp_path, epochs=2)
    assert data._norms.labels.tolist() == dataset.labels.tolist()
    data._norms.close()
    for label in dataset.labels.unique():
        assert len(set(data._norms.estimate[dataset.labels.numpy() == int(label)])) == 1


def _prepared(size: int, tau: float, sampler: Any = None) -> ImportanceDataSampler:
    data = ImportanceDataSampler(tau=tau)
    dataset = toy_data(size)
    data.wrap(DataLoader(dataset, batch_size=4, sampler=sampler or SequentialSampler(dataset)))
    trainer = SimpleNamespace(world_size=1, current_epoch=1, strategy=None)
    data.prepare(SimpleNamespace(total_iterations=10, trainer=trainer, seed=0))  # type: ignore[arg-type]
    return data


def test_frequencies_follow_the_distribution() -> None:
    data = _prepared(6, tau=0.8)
    data._norms.add(np.arange(6), np.array([1.0, 2.0, 3.0, 4.0, 0.0, 10.0]), None, _one_rank)
    n = 30_000
    drawn = data._draw(n)
    expected = n * (0.8 * np.array([1, 2, 3, 4, 0, 10]) / 20 + 0.2 / 6)
    counts = np.bincount(drawn, minlength=6)
    assert chisquare(counts, expected).pvalue > 1e-3
    assert chisquare(counts).pvalue < 1e-6, "the test could not tell it from uniform"
    assert (data._draw(n) == drawn).all(), "an epoch's draws depend on seed and epoch alone"
    data._plan.trainer.current_epoch = 2
    assert (data._draw(n) != drawn).any()


def test_checkpoint_after_the_run_has_ended(tmp_path: Path) -> None:
    data = ImportanceDataSampler(tau=0.5)
    run = train(_case(Numbered()), {"data": data}, tmp_path, epochs=1)
    run.evaluator.trainer.save_checkpoint(tmp_path / "late.ckpt")
    kept = torch.load(tmp_path / "late.ckpt", weights_only=True)["nni_supernet_ext"]["components"]
    assert int(kept["ImportanceDataSampler/0"]["counts"].sum()) == 40


def test_held_out_examples_stay_out() -> None:
    kept = [0, 2, 4]
    data = _prepared(6, 0.8, SubsetRandomSampler(kept, generator=torch.Generator().manual_seed(0)))
    data._norms.add(np.array(kept), np.ones(3), None, _one_rank)
    assert set(data._draw(300)) == set(kept)

    class Own(torch.utils.data.Sampler[int]):
        def __iter__(self) -> Any:
            return iter([5, 1])

        def __len__(self) -> int:
            return 2

    data = _prepared(6, 0.8, Own())
    assert list(data._order) == [5, 1]  # type: ignore[arg-type]
    data._norms.add(np.array([1, 5]), np.ones(2), None, _one_rank)
    assert set(data._draw(300)) == {1, 5}


@pytest.mark.parametrize("drawn", [True, False])
def test_ranks_share_an_epoch(monkeypatch: pytest.MonkeyPatch, drawn: bool) -> None:
    import torch.distributed as dist

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    dataset = toy_data(8)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        draws = (lambda n: np.arange(n)[::-1]) if drawn else (lambda n: None)
        order = RecordedOrder(SequentialSampler(dataset), dataset, draws)
        order.set_epoch(3)
        assert len(order) == 4 and order.epoch == 3
        shares.append(list(order))
    assert shares == ([[7, 5, 3, 1], [6, 4, 2, 0]] if drawn else [[0, 2, 4, 6], [1, 3, 5, 7]])


def test_user_sampler_still_gets_the_epoch() -> None:
    class Own(SequentialSampler):
        epoch = -1

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    own = Own(toy_data(4))
    RecordedOrder(own, toy_data(4), lambda n: None).set_epoch(7)
    assert own.epoch == 7


def _init_worker(worker: int) -> None:
    pass


def _collate(items: Any) -> Any:
    return torch.utils.data.default_collate(items)


def test_rebuilt_loader_keeps_everything_but_the_sampler() -> None:
    dataset = toy_data(10)
    loader = DataLoader(
        dataset,
        batch_size=3,
        shuffle=True,
        num_workers=2,
        collate_fn=_collate,
        pin_memory=True,
        drop_last=True,
        timeout=5,
        worker_init_fn=_init_worker,
        multiprocessing_context="fork",
        prefetch_factor=4,
        persistent_workers=True,
        generator=torch.Generator(),
    )
    sampler = SequentialSampler(dataset)
    made = rebuilt_loader(loader, sampler)
    assert made.sampler is sampler and made.dataset is dataset
    for name in (
        "batch_size",
        "num_workers",
        "collate_fn",
        "pin_memory",
        "drop_last",
        "timeout",
        "worker_init_fn",
        "multiprocessing_context",
        "prefetch_factor",
        "persistent_workers",
        "generator",
    ):
        assert getattr(made, name) == getattr(loader, name), name


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


class OwnIteration(torch.utils.data.DataLoader[Any]):
    def __iter__(self) -> Any:
        return super().__iter__()


class WithoutLength(Sampler[int]):
    def __iter__(self) -> Any:
        return iter([0])


DATA = toy_data(8)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([1, 2], "one torch DataLoader, but got list"),
        (DataLoader(Endless()), "indexable, but got the iterable dataset Endless"),
        (DataLoader(DATA, batch_sampler=[[0, 1], [2]]), "form its batches from `batch_size`, but got list"),
        (DataLoader(DATA, batch_size=None), "but got `batch_size=None`"),
        (DataLoader(DATA, sampler=WeightedRandomSampler([1.0] * 8, 8)), "got WeightedRandomSampler"),
        (
            DataLoader(DATA, sampler=torch.utils.data.DistributedSampler(DATA, num_replicas=2, rank=0)),
            "got DistributedSampler",
        ),
        (DataLoader(DATA, sampler=WithoutLength()), "got WithoutLength without `__len__`"),
        (OwnIteration(DATA), "OwnIteration with an `__iter__` of its own"),
    ],
)
def test_refuses_loaders(loader: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        ImportanceDataSampler().wrap(loader)
    assert all(". " in problem for problem in caught.value.problems), "each refusal names its remedy"


def test_refuses_a_batch_sampler_of_its_own_kind() -> None:
    class Pairs(BatchSampler):
        pass

    loader = DataLoader(DATA, batch_sampler=Pairs(SequentialSampler(DATA), 2, False))
    with pytest.raises(ConfigurationError, match="but got Pairs"):
        ImportanceDataSampler().wrap(loader)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"granularity": "image"}, "`granularity` is expected to be one of"),
        ({"unseen": "drop"}, "`unseen` is expected to be one of"),
        ({"tau": 1.0}, "`tau` is expected to be one of"),
        ({"logits": 3}, "`logits` is expected to be a function of the model's output or None, but got 3"),
        ({"labels": "y"}, "`labels` is expected to be a function of the batch or None, but got 'y'"),
    ],
)
def test_refuses_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(_case(Numbered()), {"data": ImportanceDataSampler(**arguments)}, tmp_path)


@pytest.mark.parametrize("change", [-8, 8])
def test_dataset_that_shrinks_or_grows(tmp_path: Path, change: int) -> None:
    dataset = Numbered()

    class Change(SupernetCallback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            longer = Numbered(40 + change)
            dataset.images, dataset.labels = longer.images, longer.labels

    with pytest.raises(DataError, match=f"keep its 40 examples, but got {40 + change}"):
        train(_case(dataset), {"data": ImportanceDataSampler(0.5), "callbacks": [Change()]}, tmp_path)


def test_resume_with_another_dataset_length(tmp_path: Path) -> None:
    settings = {"data": ImportanceDataSampler(0.5), "checkpoint_dir": tmp_path / "checkpoint"}
    train(_case(Numbered()), {**settings, "callbacks": [StopAfter(1)]}, tmp_path, epochs=3)
    with pytest.raises(CheckpointError, match="dataset with 48 examples, but got one of 40"):
        train(_case(Numbered(48)), {**settings, "data": ImportanceDataSampler(0.5)}, tmp_path, epochs=3)


def test_batch_without_labels(tmp_path: Path) -> None:
    data = ImportanceDataSampler()
    data.labels = partial(data.labels)
    assert data.labels((torch.zeros(2), torch.ones(2))).sum() == 2
    assert data.labels({"x": 1, "targets": torch.ones(3)}).sum() == 3
    for batch in ((torch.zeros(2),), torch.zeros(2), {"x": torch.zeros(2)}, [torch.zeros(2), [1, 2]]):
        with pytest.raises(DataError, match="expected to hold labels"):
            data.labels(batch)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected to hold class scores"):
        data.logits({"features": torch.zeros(2)})
    assert data.logits({"logits": torch.ones(1)}) == 1 and data.logits((torch.ones(1), None)) == 1


def test_labels_that_are_neither_classes_nor_probabilities(tmp_path: Path) -> None:
    data = ImportanceDataSampler(granularity="class", labels=lambda batch: batch[1].float())
    with pytest.raises(DataError, match=r"`targets` is expected to hold class indices of shape \(16,\)"):
        train(_case(Numbered()), {"data": data}, tmp_path)


@pytest.mark.parametrize("granularity", ["sample", "class"])
def test_ignored_examples_have_no_gradient(tmp_path: Path, granularity: Any) -> None:
    dataset = Numbered()
    dataset.labels = dataset.labels.masked_fill(torch.arange(40) % 4 == 0, -100)
    data = ImportanceDataSampler(tau=0.7, granularity=granularity)
    watch = Watch(data)
    train(_case(dataset), {"data": data, "callbacks": [watch]}, tmp_path, epochs=2)
    assert all((max(bounds) == 0.0) == (index % 4 == 0) for index, bounds in watch.bounds.items())


def test_outputs_that_are_not_one_row_per_example(tmp_path: Path) -> None:
    data = ImportanceDataSampler(logits=lambda output: output[:-1])
    with pytest.raises(DataError, match="one row for each of the batch's 16 examples, but got 15"):
        train(_case(Numbered()), {"data": data}, tmp_path)
    outcome = data._plan
    assert outcome is None, "the run's end let go of the plan and the model's hook"


def test_outputs_that_are_not_finite_are_left_out() -> None:
    data = _prepared(6, tau=0.5)
    values = torch.tensor([1.0, float("nan"), 3.0])
    data._waiting = [(np.array([0, 1, 2]), values, None)]
    data._gather()
    assert data._norms.counts.tolist() == [1, 0, 1, 0, 0, 0]
    data._waiting = [(np.array([0]), torch.tensor([float("nan")]), None)]
    with pytest.raises(TrainingDivergedError, match="outputs of the model are expected to be finite"):
        data._gather()


class Module(LightningDataModule):
    """A data module that has no loader before its set-up."""

    def __init__(self, train: Any, valid: Any) -> None:
        super().__init__()
        self.given = (train, valid)
        self.train: Any = None

    def setup(self, stage: str) -> None:
        self.train, self.valid = self.given

    def train_dataloader(self) -> Any:
        assert self.train is not None, "not set up"
        return self.train

    def val_dataloader(self) -> Any:
        return self.valid


def _module_case(made: list[Module], loader: Any) -> MethodCase:
    def evaluator(max_epochs: int = 2, *, root: Any = ".", **arguments: Any) -> Lightning:
        plain = toy_evaluator(max_epochs, root=root, **arguments)
        made.append(Module(loader, plain.val_dataloaders))
        return Lightning(plain.module, plain.trainer, datamodule=made[-1])

    return MethodCase("case", dict, evaluator=evaluator)


class NoStep(SupernetCallback):
    def on_draws(self, state: Any) -> None:
        raise AssertionError("a step was made")


UNUSABLE = {"batch_size": None, "sampler": WeightedRandomSampler([1.0] * 8, 8)}


def test_loaders_are_refused_together_with_all_other_problems(tmp_path: Path) -> None:
    settings = {"data": ImportanceDataSampler(1.0), "callbacks": [GradientVariance(every=0), NoStep()]}
    with pytest.raises(ConfigurationError) as caught:
        train(_case(DATA, **UNUSABLE), settings, tmp_path)
    for expected in ("`tau`", "`every`", "`batch_size=None`", "WeightedRandomSampler"):
        (problem,) = [problem for problem in caught.value.problems if expected in problem]
        assert ". " in problem, "it names its remedy"
    assert len(caught.value.problems) == 4


def test_loaders_of_a_data_module_are_refused_once_it_is_set_up(tmp_path: Path) -> None:
    class Late(SupernetCallback):
        """Have a problem that shows when there is an optimizer."""

        def problems(self, plan: Any) -> list[str]:
            return [] if plan.optimizer is None else ["It is late. Begin earlier."]

    settings = {"data": ImportanceDataSampler(0.5), "callbacks": [Late(), NoStep()]}
    with pytest.raises(ConfigurationError) as caught:
        train(_module_case([], DataLoader(DATA, **UNUSABLE)), settings, tmp_path)
    assert ["late" in p or "training loader" in p for p in caught.value.problems] == [True] * 3


def test_data_modules_are_sampled_and_given_back(tmp_path: Path) -> None:
    """Validation reads the loader too, which must not take the place of the one that is trained from."""
    made: list[Module] = []
    data = ImportanceDataSampler(tau=0.7)
    watch = Watch(data)
    loader = DataLoader(Numbered(), batch_size=16, shuffle=True)
    train(_module_case(made, loader), {"data": data, "callbacks": [watch]}, tmp_path, epochs=3)
    assert len(watch.batches) == 9
    later = [index for batch in watch.batches[3:] for index in batch]
    assert len(set(later)) < len(later), "drawn with replacement"
    assert made[0].train_dataloader() is loader


class EpochOrder(Sampler[int]):
    """Shuffle by the epoch, as Lightning announces it; random changes of images draw from the same generator."""

    def __init__(self, size: int) -> None:
        self.size, self.generator, self.epochs = size, torch.Generator(), [0]

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)
        self.generator.manual_seed(epoch)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Any:
        yield from torch.randperm(self.size, generator=self.generator).tolist()


class WholeBatches(Numbered):
    """Give a batch at once."""

    def __getitems__(self, indices: list[int]) -> Any:
        chosen = torch.tensor(indices)
        return self.images[chosen], self.labels[chosen]


def _whole_batches(
    root: Path, settings: dict[str, Any], data: ImportanceDataSampler
) -> tuple[Any, Watch, EpochOrder]:
    order = EpochOrder(40)

    def noisy(batch: Any) -> Any:
        images, labels = batch
        noise = 0.1 * torch.randn(images.shape, generator=order.generator)
        noise[:, 0, 0, 0] = 0
        return images + noise, labels

    watch = Watch(data)
    case = _case(WholeBatches(), sampler=order, drop_last=True, collate_fn=noisy)
    callbacks = [*settings.pop("callbacks", []), watch]
    run = train(case, {"data": data, "callbacks": callbacks, **settings}, root, epochs=4)
    return run, watch, order


def test_own_sampler_and_batches_made_at_once(tmp_path: Path) -> None:
    data = ImportanceDataSampler(tau=0.7)
    whole, watch, order = _whole_batches(tmp_path / "whole", {}, data)
    assert [len(batch) for batch in watch.batches] == [16] * 8
    assert order.epochs[-1] == 3, "it still gets the epoch, and so do the random changes"
    # Two batches of 16 were trained in the epoch that it ordered; it would have handed out the other eight too.
    assert data._order is not None and data._order.support.tolist() == list(range(40))
    assert any(len(set(batch)) < 16 for batch in watch.batches[2:]), "with replacement"

    checkpoint = {"checkpoint_dir": tmp_path / "checkpoint"}
    _whole_batches(tmp_path, {**checkpoint, "callbacks": [StopAfter(2)]}, ImportanceDataSampler(tau=0.7))
    rest, resumed, _ = _whole_batches(tmp_path, dict(checkpoint), ImportanceDataSampler(tau=0.7))
    assert resumed.batches == watch.batches[4:]
    assert differing(rest.weights, whole.weights) == []


class Oftener(EpochOrder):
    """Hand out every example of the first half four times as often: a distribution of the user's own."""

    def __iter__(self) -> Any:
        yield from [index for index in range(self.size) for _ in range(4 if index < 20 else 1)]

    def __len__(self) -> int:
        return self.size + 60


class Repeated(EpochOrder):
    """Hand out every example three times."""

    def __iter__(self) -> Any:
        yield from [index for index in range(self.size) for _ in range(3)]

    def __len__(self) -> int:
        return 3 * self.size


@pytest.mark.parametrize("drop_last", [False, True])
def test_frequencies_of_the_users_own_are_refused(tmp_path: Path, drop_last: bool) -> None:
    def settings(tau: float) -> dict[str, Any]:
        return {"data": ImportanceDataSampler(tau), "checkpoint_dir": tmp_path / f"checkpoint {tau}"}

    case = _case(Numbered(), sampler=Oftener(40), drop_last=drop_last)
    for _ in range(2):  # and again when it is resumed after the first epoch
        with pytest.raises(DataError, match=r"equally often, but got Oftener, .* Use `shuffle=True`"):
            train(case, settings(0.5), tmp_path)
    train(case, settings(0.0), tmp_path)  # nothing takes the decision from it
    evenly = _case(Numbered(), sampler=Repeated(40), drop_last=drop_last)
    train(evenly, {"data": ImportanceDataSampler(0.5)}, tmp_path)


def test_a_subclass_is_a_sampler_of_the_users_own() -> None:
    class Half(SequentialSampler):
        def __iter__(self) -> Any:
            return iter([0, 1])

        def __len__(self) -> int:
            return 2

    data = _prepared(6, 0.8, Half(toy_data(6)))
    assert list(data._order) == [0, 1]  # type: ignore[arg-type]
    data._norms.add(np.array([0, 1]), np.ones(2), None, _one_rank)
    assert set(data._draw(300)) == {0, 1}
