"""The search: what is evaluated, what is refused, what comes back."""

from __future__ import annotations

import json
import math

import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment
from nni.nas.space import RawFormatModelSpace

from nni_supernet_ext.core import resolve_complexity
from nni_supernet_ext.errors import (
    CheckpointError,
    ConfigurationError,
    ConstraintError,
    SpaceError,
    TrainingDivergedError,
)
from nni_supernet_ext.spaces import nasbench201
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy
from nni_supernet_ext.strategies.evaluated import EvaluatedSubnet
from nni_supernet_ext.strategies.journal import sample_key
from nni_supernet_ext.testing import ToySpace, toy_evaluator
from nni_supernet_ext.testing.toys import ToyModule


def _supernet(make=ToySpace, epochs=1, root="."):
    torch.manual_seed(0)
    space, evaluator = make(), toy_evaluator(epochs, root=root)
    strategy = SupernetStrategy(validate=0, recalibrate_batches=0)
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return space, evaluator


def _search(space, evaluator, **arguments):
    search = SupernetEvolution(**{"progress": False, "recalibrate_batches": 2, **arguments})
    search(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return search


def _cells():
    return nasbench201(channels=4, cells_per_stage=1)


def test_exhausts_a_small_space_once_and_finds_its_best(tmp_path):
    space, evaluator = _supernet(epochs=4, root=tmp_path)
    search = _search(space, evaluator, population=4, cycles=9)
    keys = [sample_key(subnet.sample) for subnet in search.history]
    assert len(keys) == len(set(keys)) == 6
    best = max(search._setup.evaluator.evaluate(s)["val_acc"] for s in search.supernet.domain.grid())
    assert search.best.metrics["val_acc"] == best


def test_same_seed_same_search_and_no_architecture_twice(tmp_path):
    space, evaluator = _supernet(_cells, root=tmp_path)
    first = _search(space, evaluator, population=6, cycles=3, seed=3)
    second = _search(space, evaluator, population=6, cycles=3, seed=3)
    other = _search(space, evaluator, population=6, cycles=3, seed=4)
    samples = [subnet.sample for subnet in first.history]
    assert len({sample_key(s) for s in samples}) == 24
    assert samples == [subnet.sample for subnet in second.history]
    assert samples != [subnet.sample for subnet in other.history]


def test_selection_moves_towards_the_goal(tmp_path):
    """With the number of parameters as the only signal, later cycles hold larger subnets."""
    space, evaluator = _supernet(_cells, root=tmp_path)
    search = SupernetEvolution(population=20, cycles=6, progress=False)
    model = RawFormatModelSpace(space, evaluator)
    search.initialize(model, SequentialExecutionEngine())
    count = resolve_complexity("parameters", search.supernet)
    search._setup.evaluator.evaluate = lambda sample: {"val_acc": count(sample)}
    search.run()
    sizes = [subnet.parameters for subnet in search.history]
    assert sum(sizes[-20:]) / 20 > 1.5 * sum(sizes[:20]) / 20


def test_budget_is_kept_and_counted_right(tmp_path):
    space, evaluator = _supernet(_cells, root=tmp_path)
    search = _search(space, evaluator, population=8, cycles=2, max_parameters=12_000, count_flops=True)
    for subnet in search.history:
        network = search.supernet.extract(subnet.sample)
        assert subnet.parameters == sum(p.numel() for p in network.parameters()) <= 12_000
        assert subnet.flops > 0


@pytest.mark.parametrize("bound", ["max_parameters", "max_flops"])
def test_budget_nobody_meets_is_an_error_at_once(tmp_path, bound):
    space, evaluator = _supernet(root=tmp_path)
    with pytest.raises(ConstraintError, match=f"`{bound}` is expected to admit the smallest subnet, which has"):
        _search(space, evaluator, **{bound: 1})


def test_constraint_nobody_meets_is_an_error(tmp_path):
    space, evaluator = _supernet(root=tmp_path)
    with pytest.raises(ConstraintError, match="1000 random samples"):
        _search(space, evaluator, constraint=lambda sample: False)


def test_metric_to_minimise(tmp_path):
    space, evaluator = _supernet(root=tmp_path)
    search = _search(space, evaluator, population=6, cycles=0, metric="val_loss", mode="min")
    losses = [subnet.metrics["val_loss"] for subnet in search.history]
    assert search.best.metrics["val_loss"] == min(losses)
    assert [m.results["val_loss"] for m in search.list_models()] == sorted(losses)


def accuracy(network, loader):
    with torch.no_grad():
        hits = [(network(x).argmax(1) == y) for x, y in loader]
    return torch.cat(hits).float().mean().item()


def test_through_nnis_experiment_with_its_exporters(tmp_path):
    space, evaluator = _supernet(root=tmp_path)
    search = SupernetEvolution(population=4, cycles=1, progress=False, seed=1)
    experiment = NasExperiment(space, evaluator, search)
    experiment.config.experiment_working_directory = str(tmp_path)
    assert experiment.run()
    (sample,) = experiment.export_top_models(1, formatter="dict")
    assert sample == search.best.sample
    assert type(next(iter(sample))) is str
    (network,) = experiment.export_top_models(1, formatter="instance")
    experiment.stop()
    # The network is as good as the search says: it carries the BN statistics that it was evaluated with.
    for alone in (network, search.best_network()):
        assert not alone.training
        assert accuracy(alone, evaluator.val_dataloaders) == pytest.approx(search.best.metrics["val_acc"])
    pointers = {p.data_ptr() for p in search.supernet.model.parameters()}
    assert not pointers & {p.data_ptr() for p in network.parameters()}


def test_journal_lets_a_killed_search_go_on(tmp_path):
    space, evaluator = _supernet(_cells, root=tmp_path)
    path = tmp_path / "search" / "journal.jsonl"
    whole = _search(space, evaluator, population=5, cycles=2, journal=path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:9]) + "\n" + lines[9][:17])  # killed while writing the tenth line
    evaluated = []
    search = SupernetEvolution(population=5, cycles=2, journal=path, progress=False, recalibrate_batches=2)
    search.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    original = search._setup.evaluator.evaluate
    search._setup.evaluator.evaluate = lambda sample: (evaluated.append(sample), original(sample))[1]
    search.run()
    assert [s.sample for s in search.history] == [s.sample for s in whole.history]
    assert [s.metrics for s in search.history] == [s.metrics for s in whole.history]
    assert len(evaluated) == 15 - 8
    assert all(json.loads(line) for line in path.read_text().splitlines()[:9])


def test_journal_of_another_search_is_refused(tmp_path):
    space, evaluator = _supernet(root=tmp_path)
    path = tmp_path / "journal.jsonl"
    _search(space, evaluator, population=2, cycles=0, journal=path)
    with pytest.raises(CheckpointError, match="expected to belong to this search"):
        _search(space, evaluator, population=2, cycles=0, journal=path, seed=9)
    with pytest.raises(CheckpointError, match="expected to belong to this search"):
        _search(space, evaluator, population=2, cycles=0, journal=path, recalibrate_batches=1)
    _search(space, evaluator, population=2, cycles=0, journal=path)
    with torch.no_grad():
        space.head.weight[0, 0] += 1e-3  # another training: its subnets have other accuracies
    with pytest.raises(CheckpointError, match="expected to belong to this search"):
        _search(space, evaluator, population=2, cycles=0, journal=path)


def test_search_leaves_the_supernet_alone(tmp_path):
    space, evaluator = _supernet(root=tmp_path)
    before = {name: value.clone() for name, value in space.state_dict().items()}
    _search(space, evaluator, population=4, cycles=1)
    assert all(torch.equal(before[name], value) for name, value in space.state_dict().items())


def test_untrained_space_is_refused(tmp_path):
    with pytest.raises(SpaceError, match="Train it with SupernetStrategy first"):
        _search(ToySpace(), toy_evaluator(root=tmp_path))


def test_unlogged_metric_is_refused(tmp_path):
    space, evaluator = _supernet(root=tmp_path)
    with pytest.raises(ConfigurationError, match=r"but got 'val_f1'. It logs \['val_acc', 'val_loss'\]"):
        _search(space, evaluator, metric="val_f1")


def test_bad_arguments_are_refused_together():
    with pytest.raises(ConfigurationError) as error:
        SupernetEvolution(population=0, mutation_probability=2.0, mode="best", crossover_share=-1)
    assert len(error.value.problems) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cycles", "5"),
        ("parents", 2.5),
        ("recalibrate_batches", -1),
        ("limit_batches", 0),
        ("seed", -1),
        ("max_parameters", "1M"),
        ("max_flops", 0),
        ("mutation_probability", None),
        ("metric", None),
    ],
)
def test_a_bad_argument_is_named(name, value):
    with pytest.raises(ConfigurationError, match=f"`{name}` is expected to be .* but got {value!r}"):
        SupernetEvolution(**{name: value})


@pytest.mark.parametrize(("mode", "best"), [("min", 0.5), ("max", 0.7)])
def test_nan_is_never_the_best(mode, best):
    search = SupernetEvolution(metric="val_loss", mode=mode)
    search.history = [EvaluatedSubnet({}, {"val_loss": value}, 1, None) for value in (math.nan, 0.5, math.nan, 0.7)]
    assert search.best.metrics["val_loss"] == best


class _Undefined(ToyModule):
    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("val_auc", math.nan)


def test_no_subnet_is_the_best_where_none_can_be_ranked(tmp_path, caplog):
    space, evaluator = _supernet(root=tmp_path)
    evaluator.module.__class__ = _Undefined
    search = _search(space, evaluator, population=2, cycles=1, metric="val_auc")
    assert len(search.history) == 4
    assert caplog.text.count("The search goes on") == 1
    for asked in (lambda: search.best, search.best_network):
        with pytest.raises(TrainingDivergedError, match=r"'val_auc'.*got nan for all 4.*Check the supernet's"):
            asked()
