"""Splits decided in training: what is measured, what is decided, and that nothing else changes."""

from __future__ import annotations

import io
from types import SimpleNamespace

import cloudpickle
import numpy as np
import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nni_supernet_ext.callbacks import ComplexityAwareLR
from nni_supernet_ext.core import SupernetCallback
from nni_supernet_ext.core.split_layer import split_layers
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.paths import FairPathSampler, SandwichSampler, UniformPathSampler
from nni_supernet_ext.strategies import ChoiceSplit, FewShotStrategy, SupernetStrategy
from nni_supernet_ext.testing import (
    MethodCase,
    check_clean,
    check_freeze,
    check_ranks,
    check_resume,
    check_seed,
    toy_supernet,
)
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.testing.toys import toy_evaluator
from nni_supernet_ext.testing.training import differing, train
from nni_supernet_ext.weights import SharedWeights, WeightSplitting
from nni_supernet_ext.weights._auto_milestones import AutoMilestones, Rule
from nni_supernet_ext.weights._gradient_parts import GradientParts
from nni_supernet_ext.weights._milestones import window_ends
from tests.weights.spaces import Chain, Nested

CHAIN = MethodCase("chain", dict, space=Chain)


class Eager(WeightSplitting):
    """Split after 40 % where gradients have nothing in common, and the rest after 80 %."""

    _rule = Rule(earliest=0.4, latest=0.8, window=0.4, level=1.0, split_at_latest=True, parts=2)


class Never(WeightSplitting):
    """Make all tests and split nothing."""

    _rule = Rule(earliest=0.25, window=0.25, level=-1.0, parts=2)


class Last(WeightSplitting):
    """Split everything at the last test."""

    _rule = Rule(earliest=0.25, latest=0.5, window=0.25, level=-1.0, split_at_latest=True)


# --- what is measured


class Reference(SupernetCallback):
    """Take every draw's own gradient by a second backward pass, and add up directions the obvious way."""

    def __init__(self):
        self.sums, self.counts = {}, {}

    def prepare(self, plan):
        self.plan = plan
        self.parts = GradientParts(plan, {"b": "a", "c": "b"}, parts=2, entries=10**9)

    def on_after_draw(self, state):
        draw, model = state.draw, self.plan.supernet.model
        self.parts.start_draw(state.index == 0)
        for label in ("b", "c"):
            self.parts.add(label, draw.sample)
        kept = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        statistics = {name: value.clone() for name, value in model.named_buffers()}
        for p in model.parameters():
            p.grad = None
        state.task_loss().backward()
        for label, source in (("b", "a"), ("c", "b")):
            own = [p.grad.flatten() for p in getattr(model, label)[draw.sample[label]].parameters()]
            if own:
                key = (label, draw.sample[label], draw.sample[source])
                number = self.counts[key] = self.counts.get(key, 0) + 1
                direction = torch.cat(own) / torch.cat(own).norm()
                where = (*key, (number - 1) % 2)
                self.sums[where] = self.sums.get(where, 0) + direction
        for p, gradient in zip(model.parameters(), kept, strict=True):
            p.grad = gradient
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(statistics[name])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"paths": SandwichSampler()},
        {"paths": SandwichSampler(), "step_every": "subnet"},
        {"paths": FairPathSampler(), "set_to_none": False},
        {"callbacks": [ComplexityAwareLR(gamma_max=3.0)]},
    ],
    ids=["one", "sandwich", "subnet", "zeros", "calr"],
)
def test_sums_equal_those_of_every_draws_own_gradient(tmp_path, settings):
    reference = Reference()
    settings = {**settings, "callbacks": [*settings.get("callbacks", []), reference]}
    train(CHAIN, settings, tmp_path, epochs=3)
    names = ["conv", "point", "skip"]
    compared = 0
    for (label, place), found in reference.parts._sums.items():
        for value, source in enumerate(names):
            for part in range(2):
                expected = reference.sums.get((label, names[place], source, part))
                if expected is None:
                    assert not found[value, part].any()
                    continue
                torch.testing.assert_close(found[value, part], expected, rtol=1e-3, atol=1e-4)
                compared += 1
    assert compared == len(reference.sums) > 6
    grams = reference.parts.grams("b", least=1)
    full = [u for u in ((label, p) for label, p in reference.parts._sums if label == "b")]
    assert len(grams) <= len(full) and all(gram.shape == (6, 6) for gram in grams)


def filled(scale=1.0, entries=20, broken=(), seed=3):
    """Feed two draws with given gradients of candidate ``point`` of ``b``."""
    supernet = toy_supernet(Chain())
    plan = SimpleNamespace(supernet=supernet, seed=seed, step_every="batch")
    parts = GradientParts(plan, {"b": "a"}, parts=2, entries=entries)
    generator = torch.Generator().manual_seed(0)
    for k, source in enumerate(["conv", "skip", "conv"]):
        sample = {"a": source, "b": "point", "c": "skip"}
        for p in supernet.model.b["point"].parameters():
            p.grad = scale * torch.randn(p.shape, generator=generator)
            if k in broken:
                p.grad[0] = float("inf")
        parts.start_draw(first=True)
        parts.add("b", sample)
    return parts


def test_scale_does_not_count_and_gradients_that_are_not_finite_are_left_out():
    plain = filled()._sums["b", 1]
    torch.testing.assert_close(filled(scale=65536.0)._sums["b", 1], plain)
    broken = filled(broken=[0])._sums["b", 1]
    assert not broken[0, 0].any() and torch.equal(broken[2], plain[2]) and torch.equal(broken[0, 1], plain[0, 1])
    assert [row.norm(dim=-1).round(decimals=4).tolist() for row in plain] == [[1, 1], [0, 0], [1, 0]]


def test_a_subset_of_the_weights_is_looked_at_the_same_in_every_run():
    few, all_of_them = filled(entries=6)._sums["b", 1], filled(entries=100)._sums["b", 1]
    assert few.shape == (3, 2, 6) and all_of_them.shape == (3, 2, 20)
    assert torch.equal(few, filled(entries=6)._sums["b", 1])
    assert not torch.equal(few, filled(entries=6, seed=4)._sums["b", 1])
    parts = filled(entries=6)
    gradients = torch.cat([p.grad.flatten() for p, _ in parts._places["b", 1]]).tolist()
    looked_at = parts._gather(("b", 1)).tolist()
    assert len(set(looked_at)) == 6 and set(looked_at) <= set(gradients)


class Waiting(TorchDispatchMode):
    """Fail where a value is read on the host, or where what is computed depends on one."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = str(function)
        assert not any(word in name for word in ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select"))
        return function(*arguments, **(keywords or {}))


def test_measuring_reads_nothing_from_the_device():
    parts = filled()
    with Waiting():
        parts.start_draw(first=True)
        parts.add("b", {"a": "conv", "b": "point", "c": "skip"})
    with pytest.raises(AssertionError), Waiting():
        parts._sums["b", 1].sum().item()


def test_inner_products_are_those_of_the_mean_directions():
    parts = filled()
    assert parts.grams("b", least=1) == []  # one value has no gradients
    parts._counts["b", 1][:] = [[1, 1], [2, 2], [4, 1]]
    (gram,) = parts.grams("b", least=1)
    sums, counts = parts._sums["b", 1].double().numpy(), parts._counts["b", 1]
    means = [sums[v, k] / counts[v, k] for v in range(3) for k in range(2)]
    assert gram.numpy() == pytest.approx(np.array([[a @ b for a in means] for b in means]), abs=1e-6)
    assert parts.grams("b", least=2) == []


def test_tests_come_at_equal_shares_of_the_training():
    assert window_ends(0.3, 0.8, 0.1, 100) == [30, 40, 50, 60, 70, 80]
    assert window_ends(0.3, 0.8, 0.05, 1600) == list(range(480, 1281, 80))
    assert window_ends(0.3, 0.8, 0.05, 8) == [2, 3, 4, 5, 6]


# --- what is decided


class Sign(nn.Module):
    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    def forward(self, x):
        return self.sign * x


class Signs(ModelSpace):
    """``turned`` follows a choice that turns its input round, ``alike`` one that makes no difference."""

    def __init__(self):
        super().__init__()
        self.flip = LayerChoice({"plus": Sign(1.0), "minus": Sign(-1.0)}, label="flip")
        self.turned = LayerChoice({"x": nn.Linear(192, 8, bias=False), "y": nn.Linear(192, 8)}, label="turned")
        self.same = LayerChoice({"one": Sign(1.0), "two": Sign(1.0)}, label="same")
        self.alike = LayerChoice({"x": nn.Linear(192, 8, bias=False), "y": nn.Linear(192, 8)}, label="alike")
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = x.flatten(1)
        first = self.turned(self.flip(x))
        return self.head(torch.cat([first, self.alike(self.same(x))], 1))


DEPENDS = {"turned": ["flip"], "alike": ["same"]}
SIGNS = MethodCase("signs", dict, space=Signs)


class Wide(WeightSplitting):
    """Gather over more of a short training."""

    _rule = Rule(window=0.25, earliest=0.3, parts=3)


@pytest.mark.parametrize("settings", [{}, {"paths": FairPathSampler(), "step_every": "batch"}])
def test_what_disagrees_is_split_and_what_agrees_is_not(tmp_path, settings):
    store = Wide(DEPENDS, "auto")
    run = train(SIGNS, {**settings, "weights": store}, tmp_path, epochs=30)
    depth = {str(layer.label): layer.depth for layer in split_layers(run.strategy.trained.model)}
    assert depth == {"turned": 1, "alike": 0}, store.tests
    first, *_ = (test for test in store.tests if test["label"] == "turned")
    # One gradient is the other one's opposite, but for what the two subnets compute: nearly 2.
    assert first["split"] and 1.0 < first["disagreement"] < 2.2 and first["iteration"] == 36
    assert [t["iteration"] for t in store.tests if t["label"] == "alike"] == [36, 66, 96]


def decided(*grams):
    """Decide from given inner products of two groups' gradients, in two parts each."""
    milestones = AutoMilestones()
    trainer = SimpleNamespace(world_size=1)
    milestones._plan = SimpleNamespace(seed=0, trainer=trainer)
    milestones._groups = {"b": 2}
    milestones._parts = SimpleNamespace(grams=lambda label, least: [torch.from_numpy(gram) for gram in grams])
    return milestones._decide("b", 10, last=False), milestones.tests[0]["p_value"]


def test_what_is_not_finite_is_no_evidence_for_a_split():
    # Opposite directions: of 70 deals of 8 parts to two groups only the observed one, twice, is as extreme.
    apart = np.outer(signs := np.repeat([1.0, -1.0], 4), signs)
    broken = np.full((8, 8), np.nan)
    assert decided(*[apart] * 3)[0]
    split, p_value = decided(broken)
    assert not split and p_value == 1.0
    assert decided(broken, *[apart] * 3) == decided(*[apart] * 3)


def test_nothing_changes_before_a_split(tmp_path):
    def weights(store):
        settings = {"weights": store, "gradient_clip_val": 1.0, "paths": SandwichSampler()}
        return train(CHAIN, settings, tmp_path / type(store).__name__, epochs=3).weights

    plain, split = weights(SharedWeights()), weights(never := Never("sequential", "auto"))
    assert not differing(plain, {name: split[name] for name in plain})
    assert len(never.tests) == 2 * 3


def test_what_no_test_has_split_can_be_split_in_the_end(tmp_path):
    store = Last("sequential", "auto")
    run = train(CHAIN, {"weights": store}, tmp_path, epochs=2)
    assert [layer.depth for layer in split_layers(run.strategy.trained.model)] == [1, 1]
    assert [(t["iteration"], t["split"]) for t in store.tests] == [(2, False)] * 2 + [(4, True)] * 2


@pytest.mark.parametrize("stop", [2, 3, 5])
@pytest.mark.parametrize(("mode", "paths"), [("copied", FairPathSampler), ("shared", UniformPathSampler)])
def test_resuming_within_a_window_at_a_test_and_between_two_splits(tmp_path, stop, mode, paths):
    def run(name, stop=None):
        store = Eager(DEPENDS, "auto", mode)
        callbacks = [] if stop is None else [StopAfter(stop)]
        settings = {"weights": store, "paths": paths(), "callbacks": callbacks, "checkpoint_dir": tmp_path / name}
        return train(SIGNS, settings, tmp_path / name, epochs=8), store

    (whole, one), (first, _) = run("whole"), run("parts", stop)
    rest, other = run("parts")
    assert [t["iteration"] for t in one.tests if t["split"]] == [12, 25]
    assert [*first.draws, *rest.draws] == whole.draws and one.tests == other.tests
    assert not differing(rest.weights, whole.weights)


def test_state_holds_all_that_a_window_has_gathered():
    parts, other = filled(), filled(scale=-1.0)
    plain = torch.load(_saved(parts.state()), weights_only=True)
    other.restore(plain, torch.device("cpu"))
    assert torch.equal(other._sums["b", 1], parts._sums["b", 1])
    assert (other._counts["b", 1] == parts._counts["b", 1]).all()


def _saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return buffer


def test_nested_choices_and_parts_of_a_space(tmp_path):
    store = Last({"outer": ["first"], "inner": ["first"]}, "auto")
    run = train(MethodCase("nested", dict, space=Nested), {"weights": store}, tmp_path, epochs=2)
    assert all(layer.depth == 1 for layer in split_layers(run.strategy.trained.model))
    base = SupernetStrategy(weights=Last("sequential", "auto"), checkpoint_dir=tmp_path / "few", validate=0)
    few = FewShotStrategy(base, splits=[ChoiceSplit("a")])
    space = RawFormatModelSpace(Chain(), toy_evaluator(2, root=tmp_path))
    few.initialize(space, SequentialExecutionEngine())
    few.run()


def test_a_finished_run_lets_go_of_gradients(tmp_path):
    store = Never("sequential", "auto")
    train(CHAIN, {"weights": store}, tmp_path)
    assert store._auto is None and len(cloudpickle.dumps(store)) < 5000


def test_a_second_training_goes_on_with_what_is_split(tmp_path):
    run = train(CHAIN, {"weights": Last("sequential", "auto")}, tmp_path, epochs=2)
    space, store = run.strategy.trained.model.train(), Never("sequential", "auto")
    again = train(CHAIN, {"weights": store}, tmp_path / "again", epochs=1, space=space)
    assert [layer.depth for layer in split_layers(again.strategy.trained.model)] == [1, 1]
    assert store.tests == []


def test_a_training_of_unknown_length_is_refused():
    with pytest.raises(ConfigurationError, match="known number of iterations for `milestones='auto'`"):
        AutoMilestones().start(SimpleNamespace(total_iterations=None), {})


def eager():
    return {"weights": Eager(DEPENDS, "auto"), "paths": FairPathSampler()}


AUTO = MethodCase("auto", eager, no_neutral="it always splits", space=Signs)


@pytest.mark.parametrize("law", [check_seed, check_clean, check_freeze])
def test_laws(law, tmp_path):
    law(AUTO, tmp_path)


@pytest.mark.timeout(600)
def test_resuming_in_a_fresh_process(tmp_path):
    check_resume([AUTO], tmp_path, epochs=8)


@pytest.mark.timeout(600)
def test_two_ranks_split_alike(tmp_path):
    check_ranks([AUTO], tmp_path)
