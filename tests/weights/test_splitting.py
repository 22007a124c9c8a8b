"""Weight splitting in the host: against a slow loop, over checkpoints, with every other method."""

from __future__ import annotations

import copy
from collections import Counter
from functools import partial
from itertools import islice

import cloudpickle
import numpy as np
import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch.func import functional_call

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.core import Draw, PathSampler, SubnetEvaluator, Supernet, SupernetCallback, parameter_count
from nni_supernet_ext.core.split_layer import split_layers
from nni_supernet_ext.data import ImportanceDataSampler
from nni_supernet_ext.functional import preserved_batch_norm, recalibrate_batch_norm
from nni_supernet_ext.objectives import InplaceDistillation
from nni_supernet_ext.paths import (
    FairPathSampler,
    ImportancePathSampler,
    SandwichSampler,
    UniformPathSampler,
)
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import MethodCase, ToyCellSpace, check_ranks, toy_supernet
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.testing.toys import toy_evaluator
from nni_supernet_ext.testing.training import differing, train
from nni_supernet_ext.weights import SharedWeights, WeightSplitting
from tests.weights.spaces import BOTH, Chain

CHAIN = MethodCase("chain", dict, space=Chain)
CELLS = MethodCase("cells", dict, space=ToyCellSpace)
ADAM = {"optimizer": torch.optim.Adam, "learning_rate": 0.01}


def sgd(**arguments):
    return {"optimizer": partial(torch.optim.SGD, momentum=0.9, **arguments)}


# --- against a slow loop


class SlowConditional:
    """Train conditional weights the obvious way: a dictionary of tensors and momenta for everything."""

    def __init__(self, model, optimizer_state, cluster):
        self.model, self.mode, self.cluster = model, optimizer_state, cluster
        self.weights = {(name, ()): p.detach().clone() for name, p in model.named_parameters()}
        self.momenta = {}
        self.split = False

    def place(self, name, sample):
        """Name the weight set of a parameter: edge_1's depend on edge_0 once split."""
        return (name, (sample["edge_0"],) if self.split and ".second." in name else ())

    def split_now(self):
        for name, _ in [key for key in self.weights if ".second." in key[0]]:
            for op in ("conv", "point", "skip"):
                self.weights[name, (op,)] = self.weights[name, ()].clone()
                for cluster in {key[0] for key in self.momenta}:
                    if (cluster, name, ()) in self.momenta and self.mode == "copied":
                        self.momenta[cluster, name, (op,)] = self.momenta[cluster, name, ()].clone()
        self.split = True

    def step(self, sample, x, y):
        names = [name for name, _ in self.model.named_parameters()]
        chosen = {name: self.weights[self.place(name, sample)].requires_grad_() for name in names}
        loss = torch.nn.functional.cross_entropy(functional_call(self.model, chosen, x), y)
        gradients = torch.autograd.grad(loss, list(chosen.values()), allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is None:
                continue
            weight = chosen[name].detach()
            direction = gradient + 1e-4 * weight
            name, place = self.place(name, sample)
            key = (self.cluster(sample), name, () if self.mode == "shared" else place)
            if key in self.momenta:
                direction = 0.9 * self.momenta[key] + direction
            self.momenta[key] = direction
            self.weights[name, place] = weight - 0.05 * direction


@pytest.mark.parametrize("optimizer_state", ["copied", "zeroed", "shared"])
@pytest.mark.parametrize("by", [None, "edge_1"])
def test_training_equals_a_slow_loop(tmp_path, optimizer_state, by):
    store = WeightSplitting("sequential", [1], optimizer_state)
    callbacks = [MomentumSeparation(by)] if by else []
    run = train(CELLS, {"weights": store, "callbacks": callbacks}, tmp_path, epochs=6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        space = ToyCellSpace()
        SupernetStrategy().mutate_model(space)
    plain = Supernet(space)
    slow = SlowConditional(space, optimizer_state, (lambda sample: sample[by]) if by else (lambda sample: 0))
    draws, loader = iter(run.draws), toy_evaluator().train_dataloaders
    for epoch in range(6):
        if epoch == 1:
            slow.split_now()
        for x, y in islice(loader, 4):
            sample = next(draws)[0]
            plain.activate(sample)
            slow.step(sample, x, y)
    trained, compared = run.weights, 0
    for (name, place), expected in slow.weights.items():
        if ".second." in name and not place:
            continue
        path, _, rest = name.partition(".second.")
        op, _, tail = rest.partition(".")
        copies = {"point": "1", "skip": "2"}
        if place and place[0] in copies:
            name = f"{path}.second.copies.{op}|{copies[place[0]]}.{tail}"
        torch.testing.assert_close(trained[name], expected.detach(), rtol=1e-5, atol=1e-6, msg=name)
        compared += 1
    assert compared == len(list(run.strategy.trained.model.parameters()))
    contexts = {(draw["edge_0"], draw["edge_1"]) for draws in run.draws[4:] for draw in draws}
    assert len({pair for pair in contexts if pair[1] != "skip"}) > 4


# --- the moment of a milestone


class Watch(UniformPathSampler):
    """Compute all subnets before the hooks of a step, and again after them."""

    def prepare(self, plan):
        super().prepare(plan)
        self.plan, self.changed, self.depths = plan, [], []

    def outputs(self):
        model, supernet = self.plan.supernet.model, self.plan.supernet
        was_training = model.training
        model.eval()
        x = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)
        with torch.no_grad():
            results = []
            for sample in supernet.domain.grid():
                self.plan.weights.activate(supernet, sample)
                results.append(model(x))
        model.train(was_training)
        return torch.stack(results)

    def draws(self, rng, state):
        self.before = self.outputs()
        return super().draws(rng, state)


class After(SupernetCallback):
    def __init__(self, watch):
        self.watch = watch

    def on_draws(self, state):
        self.watch.depths.append([layer.depth for layer in split_layers(self.watch.plan.supernet.model)])
        self.watch.changed.append(not torch.equal(self.watch.outputs(), self.watch.before))


def test_no_subnet_changes_at_a_milestone(tmp_path):
    watch = Watch()
    settings = {"paths": watch, "callbacks": [After(watch)], "weights": WeightSplitting(BOTH, [1, 2])}
    run = train(CHAIN, settings, tmp_path, epochs=3)
    assert watch.depths == [[0, 0]] * 4 + [[1, 1]] * 4 + [[1, 2]] * 4
    assert not any(watch.changed)
    outputs = watch.outputs()
    first = [s["a"] for s in run.strategy.trained.domain.grid()]
    assert len({tuple(out.flatten().tolist()) for out in outputs}) == len(first)  # no two subnets equal by now


class Snapshot(SupernetCallback):
    """Keep what a step's hooks leave of weights and optimizer."""

    def __init__(self, iteration):
        self.iteration = iteration

    def prepare(self, plan):
        self.plan = plan

    def on_draws(self, state):
        if state.iteration == self.iteration:
            self.weights = {n: v.clone() for n, v in self.plan.supernet.model.state_dict().items()}
            self.named = dict(self.plan.supernet.model.named_parameters())
            self.storages = {
                n: {k: v.data_ptr() for k, v in self.plan.optimizer.state[p].items()}
                for n, p in self.named.items()
                if p in self.plan.optimizer.state
            }
            self.states = {
                n: {k: v.clone() for k, v in self.plan.optimizer.state[p].items()}
                for n, p in self.named.items()
                if p in self.plan.optimizer.state
            }


def parent_of(name):
    layer, _, rest = name.partition(".copies.")
    candidate, _, tail = rest.partition("|")
    return f"{layer}.{candidate}.{tail.partition('.')[2]}"


AMSGRAD = {"optimizer": partial(torch.optim.AdamW, amsgrad=True)}


@pytest.mark.parametrize("optimizer", [ADAM, sgd(nesterov=True), AMSGRAD])
def test_copies_equal_their_parent_in_weights_statistics_and_optimizer_state(tmp_path, optimizer):
    snapshot = Snapshot(4)
    settings = {"weights": WeightSplitting("sequential", [0.5]), "callbacks": [snapshot]}
    run = train(CHAIN, settings, tmp_path, evaluator_arguments=optimizer)
    copies = [name for name in snapshot.weights if ".copies." in name]
    assert len([name for name in copies if "running_mean" in name]) == 2 * 2
    for name in copies:
        assert torch.equal(snapshot.weights[name], snapshot.weights[parent_of(name)]), name
    owned = [name for name in copies if name in snapshot.states]
    assert owned and {parent_of(n) for n in owned} == {
        n for n in snapshot.states if n.startswith(("b.", "c.")) and ".copies." not in n
    }
    for name in owned:
        mine, theirs = snapshot.states[name], snapshot.states[parent_of(name)]
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
        storages = snapshot.storages
        assert not set(storages[name].values()) & set(storages[parent_of(name)].values())
    assert any(not torch.equal(run.weights[n], run.weights[parent_of(n)]) for n in copies)


@pytest.mark.parametrize("mode", ["zeroed", "shared"])
def test_the_other_optimizer_states(tmp_path, mode):
    snapshot = Snapshot(4)
    settings = {"weights": WeightSplitting("sequential", [0.5], mode), "callbacks": [snapshot]}
    train(CHAIN, settings, tmp_path)
    split = {n for n in snapshot.named if n.startswith(("b.", "c."))}
    if mode == "zeroed":
        assert not split & set(snapshot.states) and "stem.weight" in snapshot.states
        return
    state, named = snapshot.plan.optimizer.state, snapshot.named
    assert all(state[named[n]] is state[named[parent_of(n)]] for n in split if ".copies." in n)


def test_shared_state_is_one_object_again_after_resuming_and_in_new_clusters(tmp_path):
    class Linked(Snapshot):
        def on_draws(self, state):
            super().on_draws(state)
            if state.iteration == self.iteration:
                own = [self.plan.optimizer.state, self.plan.weights.fresh_optimizer_state()]
                copies = [n for n in self.named if n.startswith(("b.copies", "c.copies"))]
                self.linked = [s[self.named[n]] is s[self.named[parent_of(n)]] for s in own for n in copies]

    def run(*callbacks):
        settings = {"weights": WeightSplitting("sequential", [1], "shared"), "checkpoint_dir": tmp_path}
        train(CHAIN, {**settings, "callbacks": list(callbacks)}, tmp_path, epochs=3)

    run(StopAfter(2))
    linked = Linked(8)
    run(linked)
    assert len(linked.linked) == 2 * 2 * 2 * 5 and all(linked.linked)


@pytest.mark.parametrize("callbacks", [[], [MomentumSeparation(by="c")]], ids=["plain", "separated"])
def test_weights_that_the_optimizer_does_not_hold_have_no_state_to_share(tmp_path, callbacks):
    def some(**arguments):
        made = toy_evaluator(**arguments)

        def configure():
            return torch.optim.SGD([p for p in made.module.parameters() if p.dim() > 1], lr=0.05, momentum=0.9)

        made.module.configure_optimizers = configure
        return made

    case = MethodCase("some", dict, space=Chain, evaluator=some)
    settings = {"weights": WeightSplitting("sequential", [1], "shared"), "callbacks": callbacks}
    stopped = {**settings, "callbacks": [*callbacks, StopAfter(2)], "checkpoint_dir": tmp_path / "c"}
    whole = train(case, settings, tmp_path, epochs=3)
    train(case, stopped, tmp_path, epochs=3)
    resumed = train(case, {**settings, "checkpoint_dir": tmp_path / "c"}, tmp_path, epochs=3)
    assert not differing(whole.weights, resumed.weights)


def test_initial_weights_and_global_random_state_stay(tmp_path):
    def initial(store):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            space, strategy = Chain(), SupernetStrategy(weights=store)
            model_space = RawFormatModelSpace(space, toy_evaluator(root=tmp_path))
            strategy.initialize(model_space, SequentialExecutionEngine())
            return {n: v.clone() for n, v in space.state_dict().items()}, torch.rand(1)

    (plain, first), (split, second) = initial(SharedWeights()), initial(WeightSplitting(BOTH, [0.3, 0.6]))
    assert torch.equal(first, second)
    assert not differing(plain, {name: split[name] for name in plain})
    assert all(torch.equal(split[n], split[parent_of(n)]) for n in split if ".copies." in n)


@pytest.mark.parametrize("optimizer", [ADAM, sgd()])
def test_a_milestone_ahead_changes_nothing(tmp_path, optimizer):
    def weights(store):
        settings = {"weights": store, "callbacks": [StopAfter(1)], "gradient_clip_val": 1.0}
        root = tmp_path / type(store).__name__
        return train(CHAIN, settings, root, epochs=2, evaluator_arguments=optimizer).weights

    plain, split = weights(SharedWeights()), weights(WeightSplitting("sequential", [1]))
    assert not differing(plain, {name: split[name] for name in plain})


# --- checkpoints


@pytest.mark.parametrize("stop", [1, 2])
@pytest.mark.parametrize(
    ("milestones", "settings", "optimizer"),
    [
        ([1, 2], {}, sgd()),
        ([1, 2], {"callbacks": [MomentumSeparation(by="b")]}, ADAM),
        ([1, 2], {"mode": "shared"}, sgd()),
        ([0.1, 0.5], {"mode": "shared", "callbacks": [MomentumSeparation(by="c")]}, sgd()),
        ([0.1, 0.5], {"paths": SandwichSampler(), "mode": "zeroed"}, sgd()),
        ([2], {"paths": ImportancePathSampler(delta=0.9), "data": ImportanceDataSampler(tau=0.5)}, sgd()),
    ],
)
def test_resuming_before_at_and_after_a_milestone(tmp_path, stop, milestones, settings, optimizer):
    def run(name, stop=None):
        own = copy.deepcopy(settings)
        own["weights"] = WeightSplitting(BOTH, milestones, own.pop("mode", "copied"))
        if stop is not None:
            own["callbacks"] = [*own.get("callbacks", []), StopAfter(stop)]
        own["checkpoint_dir"] = tmp_path / name
        return train(CHAIN, own, tmp_path / name, epochs=3, evaluator_arguments=optimizer)

    whole = run("whole")
    first = run("parts", stop)
    rest = run("parts")
    assert [*first.draws, *rest.draws] == whole.draws
    assert not differing(rest.weights, whole.weights)
    depth = [layer.depth for layer in split_layers(whole.strategy.trained.model)]
    assert depth == [1, len(milestones)]


# --- with other methods


class Contexts(SupernetCallback):
    """Note which copies the draws after the milestone use, and the weights right at it."""

    def __init__(self):
        self.drawn = Counter()
        self.base = None

    def prepare(self, plan):
        self.plan = plan

    def on_draws(self, state):
        layers = split_layers(self.plan.supernet.model)
        if layers[0].depth == 0:
            return
        if self.base is None:
            self.base = {n: p.detach().clone() for n, p in self.plan.supernet.model.named_parameters()}
        for draw in state.draws:
            for layer in layers:
                self.drawn[id(layer.chosen(draw.sample))] += 1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"callbacks": [ComplexityAwareLR(gamma_max=2.0)]},
        {"paths": FairPathSampler(fixed="a")},
        {"paths": FairPathSampler(fixed="a"), "step_every": "subnet"},
        {"paths": SandwichSampler()},
        {
            "paths": SandwichSampler(),
            "step_every": "subnet",
            "mode": "shared",
            "callbacks": [MomentumSeparation(by="b")],
        },
        {"paths": SandwichSampler(), "objective": InplaceDistillation()},
        {"paths": ImportancePathSampler(delta=0.5), "data": ImportanceDataSampler(tau=0.5)},
        {"precision": "bf16-mixed"},
    ],
    ids=["plain", "calr", "fair", "fair-subnet", "sandwich", "sandwich-shared-ms", "distilled", "panda", "bf16"],
)
def test_exactly_the_drawn_copies_train(tmp_path, settings):
    own, contexts = copy.deepcopy(settings), Contexts()
    trainer = {"precision": own.pop("precision")} if "precision" in own else {}
    own["weights"] = WeightSplitting("sequential", [1], own.pop("mode", "copied"))
    own["callbacks"] = [*own.get("callbacks", []), contexts]
    run = train(CHAIN, own, tmp_path, epochs=2, evaluator_arguments=trainer)
    model = run.strategy.trained.model
    moved = unmoved = 0
    for name, module in model.named_modules():
        layer, _, candidate = name.rpartition(".")
        if not any(True for _ in module.parameters()) or layer not in ("b", "c", "b.copies", "c.copies"):
            continue
        if candidate == "copies":
            continue
        changed = any(not torch.equal(p, contexts.base[f"{name}.{n}"]) for n, p in module.named_parameters())
        assert changed == (contexts.drawn[id(module)] > 0), name
        moved, unmoved = moved + changed, unmoved + (not changed)
    assert moved > 2 and moved + unmoved == 2 * 2 * 3


class Given(PathSampler):
    def __init__(self, samples):
        self.samples = samples

    def draws(self, rng, state):
        return [Draw(self.samples[state.iteration % len(self.samples)])]


def test_a_constant_subnet_uses_its_copy_right_at_the_milestone(tmp_path):
    sample = {"a": "skip", "b": "point", "c": "skip"}
    contexts = Contexts()
    settings = {"paths": Given([sample]), "weights": WeightSplitting("sequential", [1]), "callbacks": [contexts]}
    run = train(CHAIN, settings, tmp_path)
    assert not torch.equal(run.weights["b.copies.point|2.1.weight"], contexts.base["b.copies.point|2.1.weight"])
    assert torch.equal(run.weights["b.point.1.weight"], contexts.base["b.point.1.weight"])


def test_importance_reads_the_gradients_of_the_copy_in_use(tmp_path):
    norms = {}

    class Norms(SupernetCallback):
        def prepare(self, plan):
            self.plan = plan

        def on_after_draw(self, state):
            sampler, model = self.plan.paths, self.plan.supernet.model
            *_, (owners, measured) = [(note, values) for note, values in sampler._probe._waiting]
            own = model.b.chosen(state.draw.sample)
            expected = [float(p.grad.norm()) for p in own.parameters() if p.grad is not None]
            places = next((places for label, _, places in owners if label == "b"), [])
            norms[state.iteration] = (measured[places].tolist() if places else [], expected)

    settings = {
        "paths": ImportancePathSampler(delta=0.5),
        "weights": WeightSplitting("sequential", [1]),
        "callbacks": [Norms()],
    }
    train(CHAIN, settings, tmp_path)
    assert len(norms) == 8 and any(expected for found, expected in list(norms.values())[4:])
    for found, expected in norms.values():
        assert found == pytest.approx(expected, rel=1e-5)


# --- afterwards


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    settings = {"weights": WeightSplitting(BOTH, [0.3, 0.6])}
    return train(CHAIN, settings, tmp_path_factory.mktemp("trained"), epochs=4)


def test_an_extracted_subnet_holds_its_own_copies_only(trained):
    supernet = trained.strategy.trained
    x = next(iter(trained.evaluator.val_dataloaders))[0]
    plain_count = {"conv": 36 * 4 + 8, "point": 20, "skip": 0}
    for sample in supernet.domain.grid():
        network = supernet.extract(sample, verify=x)
        expected = 112 + 50 + sum(plain_count[op] for op in sample.values())
        assert sum(p.numel() for p in network.parameters()) == expected
        assert not any("copies" in name for name, _ in network.named_modules())


def test_subnets_of_another_context_differ(trained):
    supernet = trained.strategy.trained
    model, x = supernet.model.eval(), torch.randn(2, 4, 4, 4)
    outputs = []
    for first in ("conv", "point"):
        supernet.activate({"a": first, "b": "conv", "c": "skip"})
        outputs.append(model.b(x))
    assert not torch.equal(*outputs)


def test_recalibration_touches_the_active_copies_only(trained):
    supernet, evaluator = trained.strategy.trained, trained.evaluator
    sample = {"a": "point", "b": "conv", "c": "conv"}
    subnets = SubnetEvaluator(
        supernet,
        evaluator.module,
        evaluator.val_dataloaders,
        calibration=evaluator.train_dataloaders,
        recalibrate_batches=2,
    )
    before = {n: b.clone() for n, b in supernet.model.named_buffers()}
    first = subnets.evaluate(sample)
    assert not differing(before, dict(supernet.model.named_buffers()))
    supernet.activate(sample)
    with preserved_batch_norm(supernet.model):
        assert recalibrate_batch_norm(supernet.model, [next(iter(evaluator.train_dataloaders))]) == 2
        after = dict(supernet.model.named_buffers())
        touched = {n.rpartition(".")[0] for n in before if not torch.equal(before[n], after[n])}
        assert touched == {"b.copies.conv|1.2", "c.copies.conv|0,1.2"}
    assert first == SubnetEvaluator(
        supernet,
        evaluator.module,
        evaluator.val_dataloaders,
        calibration=evaluator.train_dataloaders,
        recalibrate_batches=2,
        activate=trained.strategy.weights.activate,
    ).evaluate(sample)


def test_validation_during_training_uses_the_copies(trained):
    supernet, evaluator = trained.strategy.trained, trained.evaluator
    validation = trained.strategy.module.validation
    subnets = SubnetEvaluator(
        supernet,
        evaluator.module,
        evaluator.val_dataloaders,
        calibration=evaluator.train_dataloaders,
        recalibrate_batches=2,
    )
    for name, sample in validation.subnets.items():
        assert subnets.evaluate(sample)["val_loss"] == pytest.approx(validation.results[name]["val_loss"], rel=1e-5)


def test_the_supernet_can_be_pickled_and_its_state_loaded(trained):
    supernet = trained.strategy.trained
    sample, x = {"a": "point", "b": "conv", "c": "point"}, torch.randn(2, 3, 8, 8)
    supernet.activate(sample)
    expected = supernet.model.eval()(x)
    settings = {"activate": trained.strategy.weights.activate}
    clone, activate = cloudpickle.loads(cloudpickle.dumps((supernet.model, settings["activate"])))
    other = Supernet(clone)
    activate(other, sample)
    assert torch.equal(other.model(x), expected)
    for layer in split_layers(clone):
        layer.depth = 0
    other.activate(sample)
    assert not torch.equal(other.model(x), expected)
    clone.load_state_dict(supernet.model.state_dict())
    assert torch.equal(other.model(x), expected)
    assert other.digest() == supernet.digest()
    split_layers(clone)[0].depth = 0
    assert trained.strategy.weights.digest(other) != trained.strategy.weights.digest(supernet)


def test_training_further_keeps_the_split(trained, tmp_path):
    space = copy.deepcopy(trained.strategy.trained.model).train()
    again = train(CHAIN, {"weights": WeightSplitting(BOTH, [0.3, 0.6])}, tmp_path, epochs=1, space=space)
    assert [layer.depth for layer in split_layers(again.strategy.trained.model)] == [1, 2]
    shared = train(CHAIN, {"weights": SharedWeights()}, tmp_path / "shared", epochs=1, space=space)
    assert [layer.depth for layer in split_layers(shared.strategy.trained.model)] == [1, 2]


def test_random_samples_and_costs_do_not_see_the_copies(trained):
    split, plain = trained.strategy.trained, toy_supernet(Chain())
    assert split.domain.labels == plain.domain.labels
    counts = parameter_count(split.model), parameter_count(plain.model)
    rng = np.random.default_rng(0)
    for _ in range(10):
        sample = split.domain.random(rng)
        assert counts[0](sample) == counts[1](sample)


# --- several ranks


def several_draws_and_clusters():
    return {
        "paths": SandwichSampler(),
        "step_every": "subnet",
        "weights": WeightSplitting(BOTH, [0.3, 0.6]),
        "callbacks": [MomentumSeparation(by="c")],
    }


@pytest.mark.timeout(600)
def test_two_ranks_split_alike(tmp_path):
    check_ranks([MethodCase("ranks", several_draws_and_clusters, space=Chain)], tmp_path)
