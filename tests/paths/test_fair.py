"""Strict fairness: every candidate equally often in each step, summed gradients, the memory of one draw."""

from __future__ import annotations

from collections import Counter
from itertools import product
from types import SimpleNamespace

import nni
import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableLinear
from torch import nn

from nni_supernet_ext.callbacks import MomentumSeparation
from nni_supernet_ext.core import StepState, SupernetCallback
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.errors import ConfigurationError, ConstraintError
from nni_supernet_ext.paths import FairPathSampler
from nni_supernet_ext.testing import ToyCellSpace, toy_supernet
from nni_supernet_ext.testing.cases import CASES
from nni_supernet_ext.testing.training import train


class Unequal(ModelSpace):
    """Choices with 1, 2, 3 and 4 candidates, and an input choice of 2 among 4."""

    def __init__(self) -> None:
        super().__init__()
        for size in (1, 2, 3, 4):
            candidates = {f"c{i}": nn.Identity() for i in range(size)}
            self.add_module(f"layer{size}", LayerChoice(candidates, label=f"size{size}"))
        self.join = InputChoice(4, n_chosen=2, label="join")
        self.head = MutableLinear(2, nni.choice("width", [2, 4, 6]))


def plan_of(space: ModelSpace) -> SimpleNamespace:
    return SimpleNamespace(supernet=SimpleNamespace(domain=Domain(space)))


def prepared(sampler: FairPathSampler, space: ModelSpace) -> FairPathSampler:
    plan = plan_of(space)
    assert list(sampler.problems(plan)) == []
    sampler.prepare(plan)
    return sampler


def values_of(draws: list, label: str) -> Counter:
    chosen = [draw.sample[label] for draw in draws]
    return Counter(v for value in chosen for v in (value if isinstance(value, list) else [value]))


def test_every_candidate_is_drawn_equally_often_in_each_of_thousands_of_steps() -> None:
    sampler = prepared(FairPathSampler(), Unequal())
    assert sampler.draws_per_step == 12  # least common multiple of 1, 2, 3, 4, 2 (2 of 4 inputs) and 3
    rng = np.random.default_rng(0)
    expected = {
        "size1": {"c0": 12},
        "size2": {"c0": 6, "c1": 6},
        "size3": dict.fromkeys(("c0", "c1", "c2"), 4),
        "size4": dict.fromkeys(("c0", "c1", "c2", "c3"), 3),
        "join": dict.fromkeys(range(4), 6),
        "width": dict.fromkeys((2, 4, 6), 4),
    }
    for _ in range(3000):
        draws = list(sampler.draws(rng, StepState()))
        assert {label: dict(values_of(draws, label)) for label in expected} == expected
        assert all(len(set(draw.sample["join"])) == 2 for draw in draws)


def test_choices_are_permuted_independently() -> None:
    sampler = prepared(FairPathSampler(), ToyCellSpace())
    rng = np.random.default_rng(1)
    pairs: Counter = Counter()
    for _ in range(3000):
        first = sampler.draws(rng, StepState())[0].sample
        pairs[first["edge_0"], first["edge_1"]] += 1
    assert len(pairs) == 9
    # 1,000 / 3 expected in each cell of the table; five standard deviations of a binomial are 86.
    assert all(abs(count - 3000 / 9) < 86 for count in pairs.values())


def test_a_fixed_choice_is_shared_by_all_draws_and_drawn_uniformly() -> None:
    sampler = prepared(FairPathSampler(fixed="size4"), Unequal())
    assert sampler.draws_per_step == 6 and sampler.shared_choices == ("size4",)
    rng = np.random.default_rng(2)
    clusters: Counter = Counter()
    for _ in range(2000):
        draws = list(sampler.draws(rng, StepState()))
        held = values_of(draws, "size4")
        assert len(held) == 1
        clusters.update(held.keys())
        assert dict(values_of(draws, "size3")) == dict.fromkeys(("c0", "c1", "c2"), 2)
    assert all(abs(clusters[f"c{i}"] - 500) < 100 for i in range(4))


class Gradients(SupernetCallback):
    """Keep the weights, the batch and the accumulated gradients of the first step."""

    def __init__(self) -> None:
        self.first: dict = {}

    def prepare(self, plan) -> None:
        self.model, self.module = plan.supernet.model, plan.training_module

    def on_draws(self, state) -> None:
        if not self.first:
            weights = {k: v.detach().clone() for k, v in self.model.named_parameters()}
            self.first = {"draws": state.draws, "batch": state.batch, "weights": weights}

    def on_before_update(self, state, optimizer) -> None:
        if "gradients" not in self.first:
            self.first["gradients"] = {k: p.grad.clone() for k, p in self.model.named_parameters()}


def test_accumulated_gradients_equal_those_of_the_summed_loss(tmp_path) -> None:
    watch = Gradients()
    case = next(case for case in CASES if case.name == "FairPathSampler")
    train(case, {"paths": FairPathSampler(), "callbacks": [watch]}, tmp_path, epochs=1)
    first = watch.first
    assert len(first["draws"]) == 6
    reference = toy_supernet()
    reference.model.load_state_dict({**reference.model.state_dict(), **first["weights"]})
    reference.model.train()
    total = torch.zeros(())
    inputs, labels = first["batch"]
    for draw in first["draws"]:
        reference.activate(draw.sample)
        total = total + nn.functional.cross_entropy(reference.model(inputs), labels)
    total.backward()
    for name, parameter in reference.model.named_parameters():
        torch.testing.assert_close(first["gradients"][name], parameter.grad, rtol=1e-5, atol=1e-6)


class Alive:
    """Count the tensors that autograd keeps for backward passes, and the most bytes at once."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def pack(self, tensor):
        kept = Kept(tensor, self)
        self.now += kept.size
        self.peak = max(self.peak, self.now)
        return kept


class Kept:
    def __init__(self, tensor, owner) -> None:
        self.tensor, self.owner, self.size = tensor.detach(), owner, tensor.numel() * tensor.element_size()

    def __del__(self) -> None:
        self.owner.now -= self.size


def peak_of(case, paths, root) -> int:
    alive = Alive()
    with torch.autograd.graph.saved_tensors_hooks(alive.pack, lambda kept: kept.tensor):
        train(case, {"paths": paths, "validate": 0, "recalibrate_batches": 0}, root, epochs=1)
    assert alive.now == 0
    return alive.peak


def test_a_step_of_many_draws_keeps_no_more_for_backward_than_its_largest_draw(tmp_path) -> None:
    from nni_supernet_ext.core import Draw
    from nni_supernet_ext.core.slots import PathSampler

    class Always(PathSampler):
        def __init__(self, sample) -> None:
            self.sample = sample

        def draws(self, rng, state):
            return (Draw(self.sample),)

    case = next(case for case in CASES if case.name == "FairPathSampler")
    samples = [{"op": op, "width": width} for op, width in product(("conv", "linear", "skip"), (4, 8))]
    single = max(peak_of(case, Always(sample), tmp_path / str(i)) for i, sample in enumerate(samples))
    assert 0 < peak_of(case, FairPathSampler(), tmp_path / "fair") <= single


def test_momentum_separation_takes_the_fixed_choice_by_default(tmp_path) -> None:
    case = next(case for case in CASES if case.name == "FairPathSampler")
    momentum = MomentumSeparation()
    run = train(case, {"paths": FairPathSampler(fixed="width"), "callbacks": [momentum]}, tmp_path, epochs=1)
    assert momentum.label == "width"
    assert all(len({sample["width"] for sample in step}) == 1 for step in run.draws)
    assert all({sample["op"] for sample in step} == {"conv", "linear", "skip"} for step in run.draws)


def test_momentum_separation_on_a_permuted_choice_is_refused(tmp_path) -> None:
    case = next(case for case in CASES if case.name == "FairPathSampler")
    for paths in (FairPathSampler(), FairPathSampler(fixed="width")):
        settings = {"paths": paths, "callbacks": [MomentumSeparation(by="op")]}
        with pytest.raises(ConfigurationError, match="draws different candidates of 'op' in a step"):
            train(case, settings, tmp_path, epochs=1)


class Weighted(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice({"a": nn.Identity(), "b": nn.ReLU()}, weights=[0.9, 0.1], label="op")


def constrained(rule) -> FairPathSampler:
    domain = Domain(ToyCellSpace())
    domain.satisfies_constraints = rule  # type: ignore[method-assign]
    sampler = FairPathSampler()
    sampler.prepare(SimpleNamespace(supernet=SimpleNamespace(domain=domain)))
    return sampler


def test_constraints_of_the_space_hold_in_every_draw() -> None:
    sampler = constrained(lambda sample: sample["edge_0"] != sample["edge_1"])
    rng = np.random.default_rng(0)
    for _ in range(200):
        draws = list(sampler.draws(rng, StepState()))
        assert all(draw.sample["edge_0"] != draw.sample["edge_1"] for draw in draws)
        assert set(values_of(draws, "edge_0").values()) == set(values_of(draws, "edge_1").values()) == {1}


def test_constraints_that_exclude_every_fair_step_are_reported() -> None:
    sampler = constrained(lambda sample: sample["edge_0"] != "conv")
    with pytest.raises(ConstraintError, match="admit a strictly fair step"):
        sampler.draws(np.random.default_rng(0), StepState())


@pytest.mark.parametrize(
    ("sampler", "space", "message"),
    [
        (FairPathSampler(fixed="none"), ToyCellSpace, "`fixed` is expected to be the label of a choice"),
        (FairPathSampler(fixed="size1"), Unequal, "choice with at least two candidates, but got 'size1'"),
        (FairPathSampler(max_draws=11), Unequal, "`max_draws` is expected to admit .* got 11 below 12"),
        (FairPathSampler(max_draws=None), Unequal, "`max_draws` is expected to be a number .* but got None"),
        (FairPathSampler(max_draws="8"), Unequal, "`max_draws` is expected to be a number .* but got '8'"),
        (FairPathSampler(max_draws=float("nan")), Unequal, "`max_draws` is expected to be a number"),
        (FairPathSampler(fixed=["size2"]), Unequal, "`fixed` is expected to be the label of a choice"),
        (FairPathSampler(), Weighted, "equal prior weights for FairPathSampler, but got 'op'"),
    ],
)
def test_what_cannot_be_fair_is_refused_with_a_remedy(sampler, space, message) -> None:
    problems = list(sampler.problems(plan_of(space())))
    assert len(problems) == 1
    with pytest.raises(ConfigurationError, match=message):
        raise ConfigurationError(problems)
