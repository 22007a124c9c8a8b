"""Dependencies of every form, counts of weight sets, and what is refused."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch import nn

from nni_supernet_ext.callbacks import MomentumSeparation
from nni_supernet_ext.core import SubnetEvaluator, Supernet
from nni_supernet_ext.core.candidate_parameters import CandidateParameters
from nni_supernet_ext.core.split_layer import SplitLayer, split_layer, split_layers
from nni_supernet_ext.errors import CheckpointError, ConfigurationError, SpaceError
from nni_supernet_ext.functional import dependency_cycle
from nni_supernet_ext.paths import FairPathSampler, SandwichSampler
from nni_supernet_ext.spaces import nasbench201, nasbench_macro
from nni_supernet_ext.strategies import ChoiceSplit, FewShotStrategy, SupernetEvolution, SupernetStrategy
from nni_supernet_ext.testing import MethodCase, ToyCellSpace, ToySpace, toy_supernet
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.testing.toys import toy_evaluator
from nni_supernet_ext.testing.training import train
from nni_supernet_ext.weights import WeightSplitting
from nni_supernet_ext.weights._milestones import Milestones
from tests.weights.spaces import BOTH, Chain, Nested

CHAIN = MethodCase("chain", dict, space=Chain)
NASBENCH201 = {"cell/1_2": ("cell/0_1",), "cell/1_3": ("cell/0_1",), "cell/2_3": ("cell/0_2", "cell/1_2")}


def checked(space, store, epochs=10, **settings):
    """Check and arrange a run without training it."""
    strategy = SupernetStrategy(weights=store, checkpoint_dir=None, **settings)
    evaluator = toy_evaluator(epochs, enable_checkpointing=False)
    strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return strategy.trained


def total(sets):
    return sum(sum(counts.values()) for counts in sets.values())


# --- counts


def test_weight_sets_of_nasbench201():
    store = WeightSplitting("nasbench201", [0.5, 0.75])
    supernet = checked(nasbench201(channels=2, cells_per_stage=1), store)
    assert store.resolved == NASBENCH201
    assert [total(store.weight_sets(supernet, depth)) for depth in (0, 1, 2)] == [12, 36, 76]
    assert total(store.weight_sets(supernet)) == 12
    at_end = {label: set(counts.values()) for label, counts in store.weight_sets(supernet, 2).items()}
    expected = {"0_1": 1, "0_2": 1, "0_3": 1, "1_2": 5, "1_3": 5, "2_3": 25}
    assert at_end == {f"cell/{edge}": {number} for edge, number in expected.items()}
    # Three cells, two tensors in each operation.
    cells = [p for name, p in supernet.model.named_parameters() if re.search(r"\d_\d", name)]
    assert len(cells) == 3 * 76 * 2


def test_weight_sets_of_nasbench_macro():
    store = WeightSplitting("sequential", [0.6])
    supernet = checked(nasbench_macro(channels=2, head_channels=8), store)

    def blocks(depth):
        sets = store.weight_sets(supernet, depth).values()
        return sum(number for counts in sets for name, number in counts.items() if name != "identity")

    assert (blocks(0), blocks(1)) == (16, 44)
    # With the projections in `identity` where the three stages begin: 3 more, of which 2 are split.
    assert (total(store.weight_sets(supernet, 0)), total(store.weight_sets(supernet, 1))) == (19, 44 + 1 + 3 + 3)


def test_one_milestone_makes_copies_for_one_dependency():
    store = WeightSplitting("nasbench201", [0.5])
    supernet = checked(nasbench201(channels=2, cells_per_stage=1), store)
    assert store.resolved["cell/2_3"] == ("cell/0_2",)
    assert total(store.weight_sets(supernet, 1)) == 36
    assert sum(1 for name, _ in supernet.model.named_parameters() if ".2_3." in name) == 3 * 2 * 2 * 5


# --- dependencies


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (lambda: nasbench201(channels=2, cells_per_stage=2, track_running_stats=True), NASBENCH201),
        (Chain, {"b": ("a",), "c": ("b",)}),
        (ToyCellSpace, {"edge_1": ("edge_0",)}),
        (Nested, {"outer": ("first",), "inner": ("first",)}),
        (
            lambda: nasbench_macro(channels=2, head_channels=8),
            {f"layer{i}": (f"layer{i - 1}",) for i in range(1, 8)},
        ),
    ],
)
def test_dependencies_read_off_the_model(space, expected):
    space = space()
    SupernetStrategy().mutate_model(space)
    before = {name: value.clone() for name, value in space.state_dict().items()}
    random = torch.get_rng_state()
    store = WeightSplitting("graph", [0.5])
    supernet = checked(space, store)
    depth_one = {label: sources[:1] for label, sources in expected.items()}
    assert store.resolved == depth_one
    assert all(torch.equal(supernet.model.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in supernet.model.modules())
    assert supernet.model.training


def test_both_dependencies_of_an_edge_are_read_off_in_order():
    store = WeightSplitting("graph", [0.3, 0.6])
    checked(nasbench201(channels=2, cells_per_stage=1), store)
    assert store.resolved == NASBENCH201


def test_sequential_follows_the_model():
    store = WeightSplitting("sequential", [0.5])
    checked(Chain(), store)
    assert store.resolved == {"b": ("a",), "c": ("b",)}


def test_a_single_label_may_stand_for_a_sequence():
    store = WeightSplitting({"c": "a", "b": []}, [0.5])
    checked(Chain(), store)
    assert store.resolved == {"c": ("a",)}


@pytest.mark.parametrize(
    ("dependencies", "cycle"),
    [
        ({"b": ["a"], "c": ["a", "b"], "d": ["b", "c"]}, []),
        ({"a": ["a"]}, ["a", "a"]),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, ["b", "c", "b"]),
    ],
)
def test_cycles(dependencies, cycle):
    assert dependency_cycle(dependencies) == cycle


# --- refusals


@pytest.mark.parametrize(
    ("store", "match"),
    [
        (WeightSplitting({"a": ["b"], "b": ["a"]}, [0.5]), "have no circle, but got a <- b <- a"),
        (WeightSplitting({"b": ["x"]}, [0.5]), r"`b`|'b' depends on \['x'\]"),
        (WeightSplitting({"b": ["b"]}, [0.5]), "other choices, each once, but 'b'"),
        (WeightSplitting({"b": ["a", "a"]}, [0.5]), "other choices, each once, but 'b'"),
        (WeightSplitting({"x": ["a"]}, [0.5]), r"split layer choices, but got 'x'. Use some of \['a', 'b', 'c'\]"),
        (WeightSplitting("nasbench201", [0.5]), "split layer choices, but got '1_2'"),
        (WeightSplitting("chain", [0.5]), "expected to be one of .*'sequential'"),
        (WeightSplitting("sequential", [10]), "within the training, 10 epochs"),
        (WeightSplitting("sequential", [-1]), "within the training"),
        (WeightSplitting("sequential", [1.5]), r"within the training, shares within \(0, 1\)"),
        (WeightSplitting(BOTH, [5, 3]), "expected to ascend"),
        (WeightSplitting(BOTH, [2, 0.5]), r"epochs \(all int\) or shares of the training \(all float\)"),
        (WeightSplitting("sequential", True), r"all int"),
        (WeightSplitting("sequential", "auto-ish"), r"all int"),
        (WeightSplitting("sequential", [0.3, 0.6]), "at most 1, one for each dependency"),
        (WeightSplitting({}, [0.3]), "lead to layer choices .*, but got none in this space"),
        (WeightSplitting("sequential", [0.5], "kept"), "`optimizer_state` is expected to be one of"),
        (WeightSplitting({"b": 3}, [0.5]), "expected to map a label to labels, but 'b' got 3"),
    ],
)
def test_refusals(store, match):
    with pytest.raises(ConfigurationError, match=match):
        checked(Chain(), store)


def test_a_choice_that_is_no_layer_choice_is_refused():
    with pytest.raises(ConfigurationError, match=r"split layer choices, but got 'width'. Use some of \['op'\]"):
        checked(ToySpace(), WeightSplitting({"width": ["op"]}, [0.5]))


@pytest.mark.parametrize("paths", [SandwichSampler(), FairPathSampler(fixed="a")])
def test_one_momentum_cannot_serve_several_copies_in_a_step(paths):
    with pytest.raises(ConfigurationError, match="each copy would advance the one momentum"):
        checked(Chain(), WeightSplitting("sequential", [0.5], "shared"), paths=paths)
    checked(Chain(), WeightSplitting("sequential", [0.5], "shared"), paths=paths, step_every="subnet")


def test_one_momentum_cannot_serve_copies_that_move_without_being_used():
    with pytest.raises(ConfigurationError, match="copies that a step does not use would advance the one momentum"):
        checked(Chain(), WeightSplitting("sequential", [0.5], "shared"), set_to_none=False)
    checked(Chain(), WeightSplitting("sequential", [0.5], "copied"), set_to_none=False)


@pytest.mark.parametrize("averaging", [StochasticWeightAveraging(0.1), EMAWeightAveraging()])
def test_averages_of_weights_are_refused(averaging, tmp_path):
    settings = {"weights": WeightSplitting("sequential", [1])}
    with pytest.raises(ConfigurationError, match=f"but got {type(averaging).__name__}.* Leave out"):
        train(CHAIN, settings, tmp_path, evaluator_arguments={"callbacks": [averaging]})


class Tied(ModelSpace):
    """Two candidates of one choice with one convolution; with ``across`` another choice uses it too."""

    def __init__(self, across=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        one = nn.Conv2d(4, 4, 1)
        other = one if across else nn.Conv2d(4, 4, 1)
        self.a = LayerChoice({"x": other, "y": nn.Identity()}, label="a")
        self.b = LayerChoice({"x": one, "y": nn.Sequential(one, nn.ReLU()), "z": nn.Identity()}, label="b")
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.b(self.a(self.stem(x))).mean(dim=(2, 3)))


def test_candidates_that_share_weights_share_them_in_every_copy():
    space = Tied()
    checked(space, WeightSplitting("sequential", [0.5]))
    layer = next(module for module in space.modules() if isinstance(module, SplitLayer))
    assert layer.copies["x|1"].weight is layer.copies["y|1"][0].weight
    assert layer.copies["x|1"].weight is not layer["x"].weight
    # One more copy of the 20 numbers of the convolution that both candidates use.
    assert sum(p.numel() for p in space.parameters()) == sum(p.numel() for p in Tied().parameters()) + 20


def test_weights_shared_with_the_rest_of_the_model_are_refused():
    with pytest.raises(ConfigurationError, match="'b' is expected to have weights of its own"):
        checked(Tied(across=True), WeightSplitting("sequential", [0.5]))


class Inputs(ModelSpace):
    """A layer behind the choice of one of two inputs."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.which = InputChoice(2, n_chosen=1, label="which")
        self.layer = LayerChoice({"conv": nn.Conv2d(4, 4, 1), "skip": nn.Identity()}, label="layer")
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.layer(self.which([self.one(x), self.two(x)])).mean(dim=(2, 3)))


@pytest.mark.parametrize("milestones", [[1], "auto"])
def test_weights_may_depend_on_the_choice_of_an_input(tmp_path, milestones):
    store = WeightSplitting({"layer": ["which"]}, milestones)
    result = train(MethodCase("inputs", dict, space=Inputs), {"weights": store}, tmp_path, epochs=3)
    layer = next(m for m in result.strategy.trained.model.modules() if isinstance(m, SplitLayer))
    first, second = layer["conv"], layer.copies["conv|1"]
    if milestones == [1]:
        assert not torch.equal(first.weight, second.weight)
        sample = {"which": [1], "layer": "conv"}
        assert torch.equal(result.strategy.trained.extract(sample).layer.weight, second.weight)


def test_a_supernet_split_in_another_way_is_refused():
    supernet = checked(Chain(), WeightSplitting("sequential", [0.5]))
    checked(supernet.model, WeightSplitting("sequential", [0.7]))
    with pytest.raises(ConfigurationError, match=r"depend on \['a'\], not on \[\]"):
        checked(supernet.model, WeightSplitting({"c": ["b"]}, [0.5]))


def test_a_training_cut_by_steps_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="8 batches of which an epoch has 4"):
        train(
            CHAIN,
            {"weights": WeightSplitting("sequential", [2])},
            tmp_path,
            epochs=5,
            evaluator_arguments={"max_steps": 8},
        )


@pytest.mark.parametrize(
    "other", [WeightSplitting({"c": ["b"]}, [1]), WeightSplitting("sequential", [0.5]), WeightSplitting({}, [])]
)
def test_a_checkpoint_with_another_split_is_refused(tmp_path, other):
    settings = {"checkpoint_dir": tmp_path / "checkpoint", "callbacks": [StopAfter(1)]}
    train(CHAIN, {**settings, "weights": WeightSplitting("sequential", [1])}, tmp_path)
    with pytest.raises(CheckpointError, match=r"another `parts`.*b <- a; c <- b; at 1; copied"):
        train(CHAIN, {**settings, "weights": other}, tmp_path)


def test_a_candidate_named_like_the_copies_is_refused():
    class Clash(ToyCellSpace):
        def __init__(self):
            super().__init__()
            from nni.nas.nn.pytorch import LayerChoice

            self.extra = LayerChoice({"copies": nn.Conv2d(4, 4, 1), "skip": nn.Identity()}, label="extra")

    with pytest.raises(SpaceError, match="Rename that candidate"):
        checked(Clash(), WeightSplitting({"extra": ["edge_0"]}, [0.5]))


def test_without_a_context_a_split_layer_refuses_to_guess():
    layer = toy_supernet(ToyCellSpace()).model.cells[0].second
    split_layer(layer, {"edge_0": ["conv", "point", "skip"]})
    with pytest.raises(RuntimeError, match="active before the forward pass"):
        layer(torch.zeros(1, 4, 4, 4))
    layer.resample({"edge_1": "conv"})
    layer(torch.zeros(1, 4, 4, 4))  # nothing counts yet
    layer.deepen()
    with pytest.raises(SpaceError, match=r"one candidate for each of \['edge_0'\].*but got None"):
        layer(torch.zeros(1, 4, 4, 4))
    layer.resample({"edge_1": "skip"})
    layer(torch.zeros(1, 4, 4, 4))  # without weights nothing depends


# --- what may hold a split


def test_supernets_made_before_the_split_follow_it():
    model = toy_supernet(Chain()).model
    early, sample = Supernet(model), {"a": "point", "b": "conv", "c": "skip"}
    early.activate(sample)
    store = WeightSplitting("sequential", [0.5])
    late = checked(model, store)
    for layer in split_layers(model):
        layer.deepen()
    with torch.no_grad():
        model.b.chosen(sample)[1].weight.add_(1.0)
    x = torch.randn(2, 3, 8, 8)
    early.activate(sample)
    expected = early.model(x)
    late.activate(sample)
    assert torch.equal(late.model(x), expected)
    late.activate({**sample, "a": "conv"})
    early.activate(sample)
    assert torch.equal(early.model(x), expected)
    for module in model.modules():  # NNI's own way, in its own order
        if hasattr(module, "resample"):
            module.resample(memo=dict(sample))
    assert torch.equal(model(x), expected)


def test_nested_choices_are_copied_whole(tmp_path):
    store = WeightSplitting({"outer": ["first"], "inner": ["first"]}, [1])
    run = train(MethodCase("nested", dict, space=Nested), {"weights": store}, tmp_path, epochs=4)
    supernet = run.strategy.trained
    x = torch.randn(2, 3, 8, 8)
    layers = split_layers(supernet.model)
    # Three outer copies of a layer with three copies of each of its candidates.
    assert sum(layer.label == "inner" for layer in layers) == 3 and all(layer.depth == 1 for layer in layers)
    for sample in supernet.domain.grid():
        network = supernet.extract(sample, verify=x)
        deep = {0: 20, 1: 148}[sample["inner"]] if sample["outer"] == "deep" else 20
        first = {"conv": 152, "point": 20, "skip": 0}[sample["first"]]
        assert sum(p.numel() for p in network.parameters()) == 112 + 50 + deep + first


def test_candidate_parameters_follow_the_depth():
    supernet = checked(Chain(), WeightSplitting(BOTH, [0.3, 0.6]))
    weights = CandidateParameters(supernet)
    sample = {"a": "point", "b": "skip", "c": "point"}
    layer = supernet.model.c
    assert weights.of("c", sample) == tuple(layer["point"].parameters())
    layer.deepen()
    assert weights.of("c", sample) == tuple(layer.copies["point|2,0"].parameters())
    layer.deepen()
    assert weights.of("c", sample) == tuple(layer.copies["point|2,1"].parameters())
    assert weights.of("c", {**sample, "c": "skip"}) == ()
    assert set(weights.labels) == {"a", "b", "c"}
    assert isinstance(layer, SplitLayer)


# --- search and few-shot


def test_evolution_needs_no_further_argument(tmp_path):
    space = Chain()
    store = WeightSplitting(BOTH, [0.3, 0.6])
    train(CHAIN, {"weights": store}, tmp_path, epochs=4, space=space)
    metrics = {}
    for name, weights in (("given", store), ("default", None)):
        search = SupernetEvolution(
            population=4, cycles=1, parents=2, weights=weights, recalibrate_batches=0, record=False, progress=False
        )
        NasExperiment(space, toy_evaluator(enable_checkpointing=False), search).run()
        metrics[name] = {str(s.sample): s.metrics for s in search.history}
        network = search.best_network().eval()
        search.supernet.activate(search.best.sample)
        x = torch.randn(4, 3, 8, 8)
        assert torch.equal(network(x), search.supernet.model.eval()(x))
        assert not any("copies" in parameter for parameter, _ in network.named_parameters())
    assert metrics["given"] == metrics["default"]
    layer = space.c
    layer.depth = 0
    again = SubnetEvaluator(search.supernet, toy_evaluator().module, toy_evaluator().val_dataloaders)
    changed = [again.evaluate(s.sample) != s.metrics for s in search.history if s.sample["a"] != "conv"]
    assert any(changed)


@pytest.mark.parametrize("dependencies", ["sequential", "graph"])
def test_few_shot_trains_split_parts(tmp_path, dependencies):
    base = SupernetStrategy(weights=WeightSplitting(dependencies, [1]), checkpoint_dir=tmp_path, validate=1)
    few_shot = FewShotStrategy(base, [ChoiceSplit("a")])
    space, evaluator = Chain(), toy_evaluator(2, root=tmp_path)
    few_shot.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    few_shot.run()
    supernet, weights = few_shot.trained, few_shot.weights
    x = torch.randn(2, 3, 8, 8)
    for sample in ({"a": "conv", "b": "conv", "c": "point"}, {"a": "skip", "b": "point", "c": "conv"}):
        weights.activate(supernet, sample)
        assert [layer.depth for layer in split_layers(supernet.model)] == [1, 1]
        supernet.extract(sample, verify=x)
    fresh = toy_supernet(Chain())
    checked(fresh.model, WeightSplitting("sequential", [1]))
    weights.activate(fresh, sample)  # the depth comes with the weights
    assert torch.equal(fresh.model.eval()(x), supernet.model.eval()(x))


def test_few_shot_with_another_split_in_the_same_folder_is_refused(tmp_path):
    def few_shot(milestone):
        base = SupernetStrategy(weights=WeightSplitting("sequential", [milestone]), checkpoint_dir=tmp_path)
        strategy = FewShotStrategy(base, [ChoiceSplit("a")], only=[0])
        evaluator = toy_evaluator(3, root=tmp_path, limit_train_batches=1)
        strategy.initialize(RawFormatModelSpace(Chain(), evaluator), SequentialExecutionEngine())
        strategy.run()

    few_shot(1)
    with pytest.raises(CheckpointError, match=r"b <- a; c <- b; at 1"):
        few_shot(2)


@pytest.mark.parametrize(
    ("milestones", "passed"),
    [
        ([1, 3], [0] * 4 + [1] * 8 + [2] * 4),
        ([0, 1], [1] * 4 + [2] * 12),
        ([0.25, 0.99], [0] * 4 + [1] * 11 + [2]),
        ([0.3125], [0] * 5 + [1] * 11),
        ([], [0] * 16),
    ],
)
def test_milestones_pass_once(milestones, passed):
    schedule = Milestones(milestones)
    schedule.start(SimpleNamespace(total_iterations=16, trainer=SimpleNamespace(num_training_batches=4)))
    seen, known = [], None
    for iteration in range(16):
        answer = schedule.due(SimpleNamespace(iteration=iteration, epoch=iteration // 4))
        assert (answer is None) == (iteration > 0 and passed[iteration] == passed[iteration - 1])
        known = known if answer is None else answer
        seen.append(known)
    assert seen == passed


@pytest.mark.parametrize("percent", [29, 57, 58])
def test_a_share_is_not_a_step_early_by_rounding(percent):
    schedule = Milestones([percent / 100])
    schedule.start(SimpleNamespace(total_iterations=100, trainer=SimpleNamespace(num_training_batches=100)))
    answers = [schedule.due(SimpleNamespace(iteration=iteration, epoch=0)) for iteration in range(100)]
    assert answers.index(1) == percent


def test_shares_need_a_known_length_and_epochs_do_not():
    endless = SimpleNamespace(total_iterations=None, trainer=SimpleNamespace(num_training_batches=math.inf))
    with pytest.raises(ConfigurationError, match="known number of iterations for `milestones`"):
        Milestones([0.5]).start(endless)
    schedule = Milestones([2])
    schedule.start(endless)
    assert [schedule.due(SimpleNamespace(epoch=epoch)) for epoch in range(4)] == [0, None, 1, None]
    endless.total_iterations = 10
    schedule.start(endless)


def test_few_shot_warm_up_is_refused():
    base = SupernetStrategy(weights=WeightSplitting("sequential", [1]))
    with pytest.raises(ConfigurationError, match="expected to be 0 with WeightSplitting"):
        FewShotStrategy(base, [ChoiceSplit("a")], warmup_epochs=1)


def test_momentum_separation_tells_its_states(tmp_path):
    separation = MomentumSeparation(by="a")
    train(CHAIN, {"callbacks": [separation]}, tmp_path, epochs=1)
    separation._states = {"conv": {"state": 1}}
    assert list(separation.optimizer_states()) == [{"state": 1}]
