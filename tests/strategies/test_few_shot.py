"""Few-shot training: regions, resuming, transfer, bounds, splits, search and the protocol over all parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import Lightning
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import nn

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.core import DataSampler, SubnetEvaluator, Supernet, SupernetCallback
from nni_supernet_ext.errors import CheckpointError, ConfigurationError, DataError, SpaceError
from nni_supernet_ext.paths import FairPathSampler
from nni_supernet_ext.spaces import NASBENCH201_OPERATIONS, nasbench201
from nni_supernet_ext.strategies import (
    ChoiceSplit,
    Division,
    FewShotStrategy,
    GradientSplit,
    SplitContext,
    SplitRule,
    SubSupernetWeights,
    SupernetEvolution,
    SupernetStrategy,
    retrain_best_of_parts,
)
from nni_supernet_ext.testing import ToyCellSpace, ToySpace, toy_evaluator
from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.training import Trace, differing, train

OPS = ["conv", "point", "skip"]


def base(*callbacks, **settings) -> SupernetStrategy:
    arguments = {"validate": 1, "recalibrate_batches": 2, "callbacks": [*callbacks, Trace()], **settings}
    return SupernetStrategy(**arguments)


def run(few_shot, root, *, epochs=2, space=ToyCellSpace, **trainer):
    evaluator = toy_evaluator(max_epochs=epochs, root=root, **trainer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        few_shot.initialize(RawFormatModelSpace(space(), evaluator), SequentialExecutionEngine())
    few_shot.run()
    return few_shot


def trace_of(few_shot, part) -> Trace:
    return next(c for c in few_shot.part_callbacks[part] if isinstance(c, Trace))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three sub-supernets on `edge_0`, trained in one go."""
    root = tmp_path_factory.mktemp("three")
    return run(FewShotStrategy(base(checkpoint_dir=root / "parts"), [ChoiceSplit("edge_0")]), root)


def test_one_part_with_all_candidates_equals_the_base_alone(tmp_path) -> None:
    def callbacks():
        return [ComplexityAwareLR(), MomentumSeparation(by="edge_1")]

    split = ChoiceSplit("edge_0", groups=[OPS])
    few_shot = run(FewShotStrategy(base(*callbacks()), [split]), tmp_path / "few")
    plain = train(MethodCase("plain", dict, space=ToyCellSpace), {"callbacks": callbacks()}, tmp_path / "plain")
    assert differing(few_shot.weights.parts[0].weights, plain.weights) == []
    assert trace_of(few_shot, 0).draws == plain.draws


def test_each_part_trains_its_own_candidates_only(three) -> None:
    fresh = ToyCellSpace()
    assert three.regions == [{"edge_0": [op]} for op in OPS]
    for part, op in enumerate(OPS):
        steps = trace_of(three, part).draws
        assert len(steps) == 8 and {sample["edge_0"] for step in steps for sample in step} == {op}
        assert len({sample["edge_1"] for step in steps for sample in step}) > 1
    first, second = (three.weights.parts[i].weights for i in (0, 1))
    name = "cells.0.first.conv.1.weight"
    assert name in first and name in fresh.state_dict()
    assert not torch.equal(first[name], second[name])  # trained in one part, untouched in the other
    assert torch.equal(second[name], three.weights.parts[2].weights[name])
    assert not torch.equal(first["stem.weight"], second["stem.weight"])


def test_a_part_alone_equals_the_same_part_in_sequence_and_parts_gather_in_the_folder(three, tmp_path) -> None:
    folder = tmp_path / "parts"
    for part in (2, 0):  # as two processes would, in any order
        alone = FewShotStrategy(base(checkpoint_dir=folder), [ChoiceSplit("edge_0")], only=[part])
        run(alone, tmp_path / str(part))
        assert list(alone.part_callbacks) == [part]
    store = SubSupernetWeights.load(folder)
    assert [part.index for part in store.parts] == [0, 2]
    for part in store.parts:
        assert differing(part.weights, three.weights.parts[part.index].weights) == []
    assert not store.owns({"edge_0": "point", "edge_1": "conv"})
    rest = run(FewShotStrategy(base(checkpoint_dir=folder), [ChoiceSplit("edge_0")]), tmp_path / "rest")
    assert list(rest.part_callbacks) == [1] and len(rest.weights.parts) == 3
    for mine, theirs in zip(rest.weights.parts, three.weights.parts, strict=True):
        assert differing(mine.weights, theirs.weights) == []


class KilledError(Exception):
    """Stands for whatever ends a process."""


class Kill(pl.Callback):
    """Die in the second epoch of the part that trains the given operation."""

    def __init__(self, op: str) -> None:
        self.op = op

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.current_epoch == 1 and pl_module.state.draws[0].sample["edge_0"] == self.op:
            raise KilledError


def test_a_killed_training_goes_on_where_it_was(three, tmp_path) -> None:
    folder = tmp_path / "parts"
    with pytest.raises(KilledError):
        killed = FewShotStrategy(base(Kill("point"), checkpoint_dir=folder), [ChoiceSplit("edge_0")])
        run(killed, tmp_path)
    state = killed.state_dict()
    resumed = FewShotStrategy(base(), [ChoiceSplit("edge_0")])
    evaluator = toy_evaluator(max_epochs=2, root=tmp_path / "again")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        resumed.initialize(RawFormatModelSpace(ToyCellSpace(), evaluator), SequentialExecutionEngine())
    resumed.load_state_dict(state)
    resumed.run()
    assert len(trace_of(resumed, 1).draws) == 4  # the second epoch only
    assert 0 not in resumed.part_callbacks and len(trace_of(resumed, 2).draws) == 8
    for mine, theirs in zip(resumed.weights.parts, three.weights.parts, strict=True):
        assert differing(mine.weights, theirs.weights) == []
        assert mine.results == theirs.results


def test_files_of_other_settings_are_refused(three, tmp_path) -> None:
    settings = {"checkpoint_dir": three.base.checkpoint_dir}
    with pytest.raises(CheckpointError, match="another `seed`"):
        run(FewShotStrategy(base(seed=1, **settings), [ChoiceSplit("edge_0")]), tmp_path)
    with pytest.raises(CheckpointError, match="another `epochs`"):
        run(FewShotStrategy(base(**settings), [ChoiceSplit("edge_0")]), tmp_path, epochs=3)
    with pytest.raises(CheckpointError, match="another `choices`"):
        run(FewShotStrategy(base(**settings), [ChoiceSplit("edge_1")]), tmp_path)
    with pytest.raises(CheckpointError, match="finished sub-supernets, but got none"):
        SubSupernetWeights.load(tmp_path)


@pytest.mark.parametrize("bounds", ["global", "part"])
def test_the_learning_rate_spans_the_whole_space_or_the_part(tmp_path, bounds) -> None:
    few_shot = FewShotStrategy(
        base(ComplexityAwareLR(gamma_max=4.0)), [ChoiceSplit("edge_0")], complexity_bounds=bounds
    )
    run(few_shot, tmp_path)
    # Weights: stem 108, head 40; per edge and two cells conv 288, point 32, skip 0.
    sizes = {"conv": 2 * 144, "point": 2 * 16, "skip": 0}
    low, high = (148, 724) if bounds == "global" else (148 + 288, 148 + 576)
    trace = trace_of(few_shot, 0)
    for step, (draws, rate) in enumerate(zip(trace.draws, trace.rates, strict=True)):
        size = 148 + sum(sizes[draws[0][label]] for label in ("edge_0", "edge_1"))
        exponent = 4.0 + (0.25 - 4.0) * math.log(size / low) / math.log(high / low)
        assert rate == pytest.approx(0.05 * (1 - step / 8) ** exponent, rel=1e-9)


class First(SupernetCallback):
    """Keep weights and momentum of the stem before the first update."""

    def __init__(self) -> None:
        self.stem = self.buffer = None

    def prepare(self, plan) -> None:
        self.model, self.optimizer = plan.supernet.model, plan.optimizer

    def on_draws(self, state) -> None:
        if self.stem is None:
            self.stem = self.model.stem.weight.detach().clone()
            self.buffer = self.optimizer.state[self.model.stem.weight].get("momentum_buffer")
            self.buffer = None if self.buffer is None else self.buffer.clone()


@pytest.mark.parametrize("transfer", ["weights", "weights_and_optimizer", "none"])
def test_transfer_from_the_warmed_up_supernet(tmp_path, transfer) -> None:
    settings = {"checkpoint_dir": tmp_path / "parts"}
    few_shot = FewShotStrategy(
        base(First(), **settings), [ChoiceSplit("edge_0")], warmup_epochs=1, transfer=transfer
    )
    run(few_shot, tmp_path)
    warm = torch.load(tmp_path / "parts" / "warmup.pt", weights_only=True)
    alone = train(MethodCase("warm", dict, space=ToyCellSpace), {"validate": 1}, tmp_path / "alone", epochs=1)
    assert differing(warm["weights"], alone.weights) == []
    index = [name for name, _ in few_shot.trained.model.named_parameters()].index("stem.weight")
    momentum = warm["optimizer"][index]["momentum_buffer"]
    assert momentum.abs().max() > 0
    for part in range(3):
        first = next(c for c in few_shot.part_callbacks[part] if isinstance(c, First))
        same = torch.equal(first.stem, warm["weights"]["stem.weight"])
        assert same == (transfer != "none")
        if transfer == "weights_and_optimizer":
            assert torch.equal(first.buffer, momentum)
        else:
            assert first.buffer is None


def test_separated_momenta_are_transferred_with_the_optimizer(tmp_path) -> None:
    few_shot = FewShotStrategy(
        base(MomentumSeparation(by="edge_1"), Momenta(), checkpoint_dir=tmp_path / "parts"),
        [ChoiceSplit("edge_0")],
        warmup_epochs=2,
        transfer="weights_and_optimizer",
    )
    run(few_shot, tmp_path)
    warm = torch.load(tmp_path / "parts" / "warmup.pt", weights_only=True)
    clusters = {name for name, _ in warm["momentum"]["MomentumSeparation"]["clusters"]}
    clusters.add(warm["momentum"]["MomentumSeparation"]["active"])
    assert clusters == set(OPS)
    for part in range(3):
        watch = next(c for c in few_shot.part_callbacks[part] if isinstance(c, Momenta))
        assert watch.known == clusters


class Momenta(SupernetCallback):
    """Name the clusters that have a momentum before the first update."""

    def __init__(self) -> None:
        self.known: set | None = None

    def prepare(self, plan) -> None:
        self.separation = next(c for c in plan.callbacks if isinstance(c, MomentumSeparation))

    def on_draws(self, state) -> None:
        if self.known is None:
            self.known = {*self.separation._states, self.separation._active}


def test_a_kill_between_the_warm_up_s_end_and_its_file_loses_no_optimizer(tmp_path) -> None:
    """The warm-up's last checkpoint is there and its file is not: it trains no further, and hands over the same."""
    handed = []
    for kill in (False, True):
        folder = tmp_path / "parts"
        if kill:
            for path in [*folder.glob("warmup.pt"), *folder.glob("part-*"), *folder.glob("part-*/last.ckpt")]:
                if path.is_file():
                    path.unlink()
        strategy = base(MomentumSeparation(by="edge_1"), checkpoint_dir=folder)
        run(
            FewShotStrategy(strategy, [ChoiceSplit("edge_0")], warmup_epochs=1, transfer="weights_and_optimizer"),
            tmp_path,
        )
        handed.append(torch.load(folder / "warmup.pt", weights_only=True))
    first, second = handed
    assert first["optimizer"] and first["momentum"]["MomentumSeparation"]["clusters"]
    assert str(first["optimizer"]) == str(second["optimizer"])
    assert str(first["momentum"]) == str(second["momentum"])


def test_two_levels_make_the_product_of_the_groups(tmp_path) -> None:
    splits = [ChoiceSplit("edge_0"), ChoiceSplit("edge_1")]
    few_shot = run(FewShotStrategy(base(), splits), tmp_path, epochs=1)
    assert len(few_shot.regions) == 9
    store = few_shot.weights
    owners = [store.owner({"edge_0": a, "edge_1": b}).index for a in OPS for b in OPS]
    assert owners == list(range(9))
    assert all({tuple(step[0].values()) for step in trace_of(few_shot, i).draws} for i in range(9))


def test_no_two_splits_draw_from_the_same_stream(tmp_path) -> None:
    drawn = []

    class Drawing(ChoiceSplit):
        def divide(self, context):
            drawn.append(int(context.rng.integers(2**31)))
            return super().divide(context)

    run(FewShotStrategy(base(validate=0), [Drawing("edge_0"), Drawing("edge_1")]), tmp_path, epochs=1)
    assert len(drawn) >= 4 and len(set(drawn)) == 4


def test_two_levels_of_five_candidates_make_25_sub_supernets(tmp_path) -> None:
    """The papers' recursive split of NAS-Bench-201: each part trains its own 625 architectures, the search all."""
    splits = [ChoiceSplit("cell/0_1"), ChoiceSplit("cell/2_3")]

    def space():
        return nasbench201(channels=2, cells_per_stage=1)

    settings = {"validate": 0, "recalibrate_batches": 0}
    few_shot = run(FewShotStrategy(base(**settings), splits), tmp_path, epochs=1, space=space)
    owned = [(part["cell/0_1"], part["cell/2_3"]) for part in few_shot.regions]
    assert owned == [([a], [b]) for a in NASBENCH201_OPERATIONS for b in NASBENCH201_OPERATIONS]
    for number, ((first,), (last,)) in enumerate(owned):
        draws = [step[0] for step in trace_of(few_shot, number).draws]
        assert draws and all((draw["cell/0_1"], draw["cell/2_3"]) == (first, last) for draw in draws)
    rng = np.random.default_rng(0)
    for _ in range(50):
        sample = few_shot.trained.domain.random(rng)
        part = few_shot.weights.owner(sample).index
        few_shot.weights.activate(few_shot.trained, sample)
        assert owned[part] == ([sample["cell/0_1"]], [sample["cell/2_3"]])
        weights, own = few_shot.trained.model.state_dict(), few_shot.weights.parts[part].weights
        assert all(torch.equal(weights[name], value) for name, value in own.items())


def test_random_groups_cover_the_candidates_and_follow_the_seed(tmp_path) -> None:
    found = []
    for seed in (0, 0, 1, 2, 3):
        few_shot = FewShotStrategy(base(seed=seed), [ChoiceSplit(parts=2)])
        evaluator = toy_evaluator(root=tmp_path)
        few_shot.initialize(RawFormatModelSpace(ToyCellSpace(), evaluator), SequentialExecutionEngine())
        (first, second) = few_shot.regions
        (label,) = first
        assert sorted(first[label] + second[label]) == OPS and {len(first[label]), len(second[label])} == {1, 2}
        found.append((label, first[label], second[label]))
    assert found[0] == found[1]
    assert len({str(entry) for entry in found}) > 1


def test_momentum_separation_never_defaults_to_the_split_choice(tmp_path) -> None:
    split = ChoiceSplit("edge_1", groups=[["conv", "point"], ["skip"]])
    for seed in range(3):
        few_shot = run(
            FewShotStrategy(base(MomentumSeparation(), seed=seed), [split]), tmp_path / str(seed), epochs=1
        )
        used = [c.label for part in few_shot.part_callbacks.values() for c in part if hasattr(c, "label")]
        assert used == ["edge_0", "edge_0"]
    free = FewShotStrategy(base(MomentumSeparation(by="edge_0")), [ChoiceSplit(parts=3)])
    free.initialize(RawFormatModelSpace(ToyCellSpace(), toy_evaluator(root=tmp_path)), SequentialExecutionEngine())
    assert all(set(region) == {"edge_1"} for region in free.regions)


def test_fair_sampling_with_both_methods_in_each_part(tmp_path) -> None:
    strategy = base(ComplexityAwareLR(), MomentumSeparation(by="op"), paths=FairPathSampler(fixed="op"))
    few_shot = run(FewShotStrategy(strategy, [ChoiceSplit("width")]), tmp_path, space=ToySpace)
    for part, width in enumerate((4, 8)):
        steps = trace_of(few_shot, part).draws
        assert {sample["width"] for step in steps for sample in step} == {width}
        assert all(len({sample["op"] for sample in step}) == 1 for step in steps)


def evolution(few_shot, root, **arguments):
    search = SupernetEvolution(
        population=6,
        cycles=1,
        parents=2,
        recalibrate_batches=0,
        progress=False,
        weights=few_shot.weights,
        **arguments,
    )
    evaluator = toy_evaluator(root=root)
    search.initialize(RawFormatModelSpace(few_shot.trained.model, evaluator), SequentialExecutionEngine())
    search.run()
    return search


def test_a_search_without_the_parts_weights_is_refused(three, tmp_path) -> None:
    space = RawFormatModelSpace(three.trained.model, toy_evaluator(root=tmp_path))
    search = SupernetEvolution(population=2, cycles=0, progress=False)
    with pytest.raises(
        ConfigurationError, match=r"`weights` is expected to be the SubSupernetWeights .* Use `weights="
    ):
        search.initialize(space, SequentialExecutionEngine())


def test_the_search_evaluates_every_sample_in_its_owner(three, tmp_path) -> None:
    search = evolution(three, tmp_path)
    assert {s.sample["edge_0"] for s in search.history} == set(OPS)
    by_part = []
    for part in three.weights.parts:
        model = SupernetStrategy().mutate_model(ToyCellSpace())
        model.load_state_dict(part.weights)
        evaluator = toy_evaluator(root=tmp_path)
        by_part.append(SubnetEvaluator(Supernet(model), evaluator.module, evaluator.val_dataloaders))
    for subnet in search.history:
        part = OPS.index(subnet.sample["edge_0"])
        assert subnet.metrics == by_part[part].evaluate(subnet.sample)
        network = search.supernet
        three.weights.activate(network, subnet.sample)
        batch = next(iter(toy_evaluator().val_dataloaders))[0]
        frozen = network.extract(subnet.sample, verify=batch)
        assert torch.equal(frozen.stem.weight, three.weights.parts[part].weights["stem.weight"])
    best = OPS.index(search.best.sample["edge_0"])
    search.weights.activate(search.supernet, {"edge_0": OPS[best - 1], "edge_1": "conv"})
    expected = three.weights.parts[best].weights["stem.weight"]
    assert torch.equal(search.best_network().stem.weight, expected)
    for model in search.list_models():
        part = OPS.index(model.sample["edge_0"])
        search.weights.activate(search.supernet, {"edge_0": OPS[part - 1], "edge_1": "conv"})
        stem = model.executable_model().stem.weight
        assert torch.equal(stem, three.weights.parts[part].weights["stem.weight"])


def test_a_sample_that_no_part_owns_is_refused_and_can_be_excluded(tmp_path) -> None:
    few_shot = FewShotStrategy(base(), [ChoiceSplit("edge_0", groups=[["conv"], ["skip"]])])
    run(few_shot, tmp_path, epochs=1)
    orphan = {"edge_0": "point", "edge_1": "conv"}
    with pytest.raises(SpaceError, match=r"which none owns\. Restrict the search"):
        few_shot.weights.activate(few_shot.trained, orphan)
    search = evolution(few_shot, tmp_path, constraint=few_shot.weights.owns)
    assert {s.sample["edge_0"] for s in search.history} == {"conv", "skip"}


def test_batch_norm_statistics_belong_to_the_part(tmp_path) -> None:
    few_shot = run(FewShotStrategy(base(), [ChoiceSplit("op")]), tmp_path, space=ToySpace)
    supernet, store = few_shot.trained, few_shot.weights
    evaluator = toy_evaluator(root=tmp_path)
    subnets = SubnetEvaluator(supernet, evaluator.module, evaluator.val_dataloaders, activate=store.activate)
    samples = [{"op": op, "width": 8} for op in ("conv", "linear", "skip")]
    first = [subnets.evaluate(sample) for sample in samples]
    for _ in range(2):
        for sample, expected in zip(reversed(samples), reversed(first), strict=True):
            assert subnets.evaluate(sample) == expected
    store.activate(supernet, samples[2])
    # Nothing is active before the first evaluation, and so nothing is activated again after it.
    fresh = SubnetEvaluator(
        Supernet(supernet.model), evaluator.module, evaluator.val_dataloaders, activate=few_shot.weights.activate
    )
    assert [fresh.evaluate(samples[0]) for _ in range(2)] == [first[0]] * 2
    means = [part.weights["norm.running_mean"] for part in store.parts]
    assert not torch.equal(means[0], means[1])
    store.activate(supernet, samples[1])
    assert torch.equal(supernet.model.norm.running_mean, means[1])


def test_the_best_of_each_part_is_retrained_and_the_best_of_them_comes_first(three, tmp_path) -> None:
    search = evolution(three, tmp_path)
    made = []

    def make():
        made.append(toy_evaluator(max_epochs=1, root=tmp_path, enable_checkpointing=False))
        return made[-1]

    retrained = retrain_best_of_parts(search.history, three.weights, three.trained, make)
    assert sorted(entry.part for entry in retrained) == [0, 1, 2] and len(made) == 3
    values = [entry.metrics["val_acc"] for entry in retrained]
    assert values == sorted(values, reverse=True)
    for entry in retrained:
        mine = [s for s in search.history if s.sample["edge_0"] == OPS[entry.part]]
        assert entry.subnet.metrics["val_acc"] == max(s.metrics["val_acc"] for s in mine)
        assert isinstance(entry.network, nn.Module)
    with pytest.raises(DataError, match="at least one evaluated subnet"):
        retrain_best_of_parts([], three.weights, three.trained, make)
    with pytest.raises(ConfigurationError, match="`mode` is expected"):
        retrain_best_of_parts(search.history, three.weights, three.trained, make, mode="best")
    with pytest.raises(ConfigurationError, match=r"`metric` is expected .* 'top1'"):
        retrain_best_of_parts(search.history, three.weights, three.trained, make, metric="top1")


def test_listed_models_are_the_validated_subnets_of_all_parts(three) -> None:
    models = list(three.list_models(limit=None))
    assert len(models) == 9  # smallest, largest and one random subnet of each of three parts
    qualities = [model._measure(model.sample)["val_acc"] for model in models]
    assert qualities == sorted(qualities, reverse=True)
    part = OPS.index(models[0].sample["edge_0"])
    stem = models[0].executable_model().stem.weight
    assert torch.equal(stem, three.weights.parts[part].weights["stem.weight"])


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class Opposed(ModelSpace):
    """On `sign`, candidates a and d pull the shared stem one way, b and c the other; `same` has no quarrel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, bias=False)
        factors = {"a": 1.0, "b": -1.0, "c": -1.1, "d": 1.1}
        self.sign = LayerChoice({k: Scaled(v) for k, v in factors.items()}, label="sign")
        self.same = LayerChoice({k: Scaled(1.0) for k in "abcd"}, label="same")
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.same(self.sign(self.stem(x))).mean(dim=(2, 3)))


def test_the_gradient_rule_splits_where_gradients_disagree(tmp_path) -> None:
    rule = GradientSplit(batches=2, subnets=2)
    few_shot = FewShotStrategy(base(checkpoint_dir=tmp_path / "parts"), [rule], warmup_epochs=1)
    run(few_shot, tmp_path, epochs=1, space=Opposed)
    assert few_shot.regions == [{"sign": ["a", "d"]}, {"sign": ["b", "c"]}]
    again = FewShotStrategy(base(checkpoint_dir=tmp_path / "parts"), [rule], warmup_epochs=1)
    run(again, tmp_path, epochs=1, space=Opposed)
    assert again.regions == few_shot.regions and again.part_callbacks == {}


def test_the_gradient_rule_leaves_the_supernet_as_it_was_and_knows_how_to_recurse(tmp_path) -> None:
    few_shot = FewShotStrategy(base(), [GradientSplit(), GradientSplit()], warmup_epochs=[1, 1])
    run(few_shot, tmp_path, epochs=1)
    assert len(few_shot.regions) == 4
    covered = [few_shot.weights.owner({"edge_0": a, "edge_1": b}).index for a in OPS for b in OPS]
    assert set(covered) == {0, 1, 2, 3}
    supernet = few_shot.trained
    evaluator = toy_evaluator(root=tmp_path)
    evaluator.module.set_model(supernet.model)
    before = {name: value.clone() for name, value in supernet.model.state_dict().items()}
    state = torch.get_rng_state()
    context = SplitContext(supernet, np.random.default_rng(0), (), evaluator.module, evaluator.train_dataloaders)
    with pytest.raises(ConfigurationError, match="a choice that can still be split"):
        held = SplitContext(supernet, np.random.default_rng(0), ("edge_0",))
        GradientSplit(["edge_0"]).divide(held)
    cuts = GradientSplit().cuts(context)
    assert set(cuts) == {"edge_0", "edge_1"}
    assert differing(before, supernet.model.state_dict()) == []
    assert torch.equal(state, torch.get_rng_state())


class Single(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.one = LayerChoice({"only": nn.Conv2d(3, 4, 1)}, label="one")
        self.two = LayerChoice({"a": nn.Identity(), "b": nn.ReLU()}, label="two")
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.two(self.one(x)).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("make", "space", "message"),
    [
        (
            lambda: FewShotStrategy(base(), [ChoiceSplit("edge_0", parts=4)]),
            ToyCellSpace,
            "candidates of 'edge_0', 3",
        ),
        (lambda: FewShotStrategy(base(), [ChoiceSplit(parts=4)]), ToyCellSpace, "the largest choice has 3"),
        (
            lambda: FewShotStrategy(base(), [ChoiceSplit(parts=np.int64(4))]),
            ToyCellSpace,
            "the largest choice has 3",
        ),
        (
            lambda: FewShotStrategy(base(MomentumSeparation(by="edge_0")), [ChoiceSplit("edge_0")]),
            ToyCellSpace,
            r"another choice than the one split on, but got 'edge_0'.*Use one of \['edge_1'\]",
        ),
        (
            lambda: FewShotStrategy(base(paths=FairPathSampler("edge_0")), [ChoiceSplit("edge_0")]),
            ToyCellSpace,
            "holds fixed within a step is expected to be another one",
        ),
        (lambda: FewShotStrategy(base(), [ChoiceSplit("one")]), Single, "at least two candidates, but got 'one'"),
        (
            lambda: FewShotStrategy(base(), [ChoiceSplit("nowhere")]),
            ToyCellSpace,
            "label of a choice, but got 'now",
        ),
        (lambda: FewShotStrategy(base(), [GradientSplit()]), ToyCellSpace, "Train the supernet for some epochs"),
        (
            lambda: FewShotStrategy(base(), [GradientSplit(["x"], batches=0)], warmup_epochs=1),
            ToyCellSpace,
            r"2 problems(.|\n)*`choices` is expected(.|\n)*`batches` is expected",
        ),
        (
            lambda: FewShotStrategy(base(), [ChoiceSplit("edge_0", groups=[["conv"], ["conv", "x"]])]),
            ToyCellSpace,
            "`groups` is expected to hold each candidate",
        ),
        (
            lambda: FewShotStrategy(base(), [ChoiceSplit("edge_0", 2, [["conv"]])]),
            ToyCellSpace,
            "exclude each other",
        ),
        (
            lambda: FewShotStrategy(base(), [ChoiceSplit("edge_0", groups=5)]),
            ToyCellSpace,
            "`groups` is expected to hold lists of candidates of 'edge_0', but got 5",
        ),
        (
            lambda: FewShotStrategy(base(), [ChoiceSplit("edge_0", groups=["conv", "skip"])]),
            ToyCellSpace,
            "`groups` is expected to hold lists of candidates",
        ),
        (
            lambda: FewShotStrategy(base(), [GradientSplit(balanced="no")], warmup_epochs=1),
            ToyCellSpace,
            "`balanced` is expected to be",
        ),
        (
            lambda: FewShotStrategy(base(), [ChoiceSplit(groups=[["conv"]])]),
            ToyCellSpace,
            "given together with `gro",
        ),
        (
            lambda: FewShotStrategy(base(), [ChoiceSplit("edge_0", 0)]),
            ToyCellSpace,
            "`parts` is expected to be a pos",
        ),
        (lambda: FewShotStrategy(base(), [ChoiceSplit("edge_0")], only=[3]), ToyCellSpace, "`only` is expected"),
        (
            lambda: FewShotStrategy(base(), [ChoiceSplit("edge_0"), ChoiceSplit("edge_0")]),
            ToyCellSpace,
            "at least two candidates",
        ),
        (
            lambda: FewShotStrategy(base(ComplexityAwareLR(gamma_max=0.5)), [ChoiceSplit("edge_0")]),
            ToyCellSpace,
            "`gamma_max` is expected",
        ),
        (lambda: FewShotStrategy(base(), transfer="all"), ToyCellSpace, "`transfer` is expected to be one of"),
        (lambda: FewShotStrategy(base(), complexity_bounds="x"), ToyCellSpace, "`complexity_bounds` is expected"),
        (lambda: FewShotStrategy(base(), warmup_epochs=[1, 2]), ToyCellSpace, "`warmup_epochs` is expected"),
        (lambda: FewShotStrategy(base(), []), ToyCellSpace, "`splits` is expected to hold at least one"),
        (lambda: FewShotStrategy("spos"), ToyCellSpace, "`base` is expected to be a SupernetStrategy"),
    ],
)
def test_what_cannot_work_is_refused_before_training(tmp_path, make, space, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        few_shot = make()
        space_evaluator = RawFormatModelSpace(space(), toy_evaluator(root=tmp_path))
        few_shot.initialize(space_evaluator, SequentialExecutionEngine())


def test_the_weights_of_parts_are_not_for_training(three, tmp_path) -> None:
    with pytest.raises(ConfigurationError, match="expected to hold weights that can be trained"):
        train(MethodCase("search", dict, space=ToyCellSpace), {"weights": three.weights}, tmp_path, epochs=1)


def test_the_users_evaluator_is_left_alone(tmp_path) -> None:
    evaluator = toy_evaluator(max_epochs=1, root=tmp_path)
    callbacks, module = list(evaluator.trainer.callbacks), evaluator.module
    few_shot = FewShotStrategy(base(), [ChoiceSplit("edge_0")])
    few_shot.initialize(RawFormatModelSpace(ToyCellSpace(), evaluator), SequentialExecutionEngine())
    state = torch.get_rng_state()
    few_shot.run()
    assert evaluator.trainer.callbacks == callbacks and evaluator.module is module
    assert evaluator.trainer.global_step == 0 and evaluator.fit_kwargs == {}
    assert torch.equal(state, torch.get_rng_state())
    hooked = [m for m in few_shot.trained.model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooked


def test_all_processes_start_from_the_weights_of_the_first(tmp_path) -> None:
    stems = []
    for part, seed in ((0, 1), (1, 2)):  # the second process has initialised other weights
        settings = base(First(), checkpoint_dir=tmp_path / "parts")
        few_shot = FewShotStrategy(settings, [ChoiceSplit("edge_0")], only=[part])
        evaluator = toy_evaluator(max_epochs=1, root=tmp_path)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            few_shot.initialize(RawFormatModelSpace(ToyCellSpace(), evaluator), SequentialExecutionEngine())
        few_shot.run()
        stems.append(next(c for c in few_shot.part_callbacks[part] if isinstance(c, First)).stem)
    assert torch.equal(stems[0], stems[1])


def test_the_experiment_runs_few_shot_training_and_then_the_search(tmp_path) -> None:
    from nni.nas.experiment import NasExperiment

    space = ToyCellSpace()
    few_shot = FewShotStrategy(base(), [ChoiceSplit("edge_0")])
    search = SupernetEvolution(population=4, cycles=0, progress=False)
    for strategy in (few_shot, search):
        experiment = NasExperiment(space, toy_evaluator(max_epochs=1, root=tmp_path), strategy)
        experiment.config.experiment_working_directory = str(tmp_path / "nni")
        try:
            experiment.run()
            assert len(experiment.export_top_models(formatter="dict", top_k=1)) == 1
        finally:
            experiment.stop()
        search.weights = few_shot.weights
    assert len(search.history) == 4
    assert (tmp_path / "supernet_checkpoints").is_dir()


class Data(pl.LightningDataModule):
    """The toy data as a data module."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluator = toy_evaluator()

    def train_dataloader(self):
        return self.evaluator.train_dataloaders

    def val_dataloader(self):
        return self.evaluator.val_dataloaders


class CountingData(DataSampler):
    """Count how often the loader is wrapped."""

    def __init__(self) -> None:
        self.wrapped: list = []

    def wrap(self, loader):
        self.wrapped.append(loader)
        return loader


def test_data_modules_are_wrapped_once_in_each_part(tmp_path) -> None:
    plain = toy_evaluator(max_epochs=1, root=tmp_path)
    data = Data()
    evaluator = Lightning(plain.module, plain.trainer, datamodule=data)
    few_shot = FewShotStrategy(base(data=CountingData(), validate=0), [GradientSplit()], warmup_epochs=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        few_shot.initialize(RawFormatModelSpace(ToyCellSpace(), evaluator), SequentialExecutionEngine())
    few_shot.run()
    assert len(few_shot.weights.parts) == 2
    assert data.train_dataloader() is data.evaluator.train_dataloaders
    assert "train_dataloader" not in vars(data)


def test_weights_that_were_written_to_are_loaded_again(three) -> None:
    supernet, one, two = three.trained, three.weights, three.weights
    conv, skip = ({"edge_0": op, "edge_1": "conv"} for op in ("conv", "skip"))

    def stem_is(part: int) -> bool:
        return torch.equal(supernet.model.stem.weight, three.weights.parts[part].weights["stem.weight"])

    one.activate(supernet, conv)
    two.activate(supernet, skip)  # another store, the same supernet
    one.activate(supernet, conv)
    assert stem_is(0)
    with torch.no_grad():
        supernet.model.stem.weight.add_(1.0)
    one.activate(supernet, conv)
    assert stem_is(0)


class Seen(SplitRule):
    """A rule of the user's own that looks at the weights and splits in the middle."""

    needs_warmup = True

    def __init__(self, stems: list) -> None:
        self.stems = stems

    def divide(self, context):
        self.stems.append(context.supernet.model.stem.weight.detach().clone())
        label = context.eligible()[0]
        first, *rest = context.supernet.domain.candidates[label]
        return Division(label, ((first,), tuple(rest)))


def test_a_rule_looks_at_the_warmed_up_weights_even_after_other_parts_were_trained(tmp_path) -> None:
    stems: list = []
    rules = [Seen(stems), Seen(stems)]
    few_shot = FewShotStrategy(base(checkpoint_dir=tmp_path / "parts", validate=0), rules, warmup_epochs=1)
    run(few_shot, tmp_path, epochs=1)
    warm = torch.load(tmp_path / "parts" / "warmup.pt", weights_only=True)["weights"]["stem.weight"]
    assert len(few_shot.regions) == 4 and len(stems) == 3
    assert all(torch.equal(stem, warm) for stem in stems)
