"""The sandwich rule in the host: which subnets, in which order, how many updates, which gradients."""

from __future__ import annotations

import logging

import nni
import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace, MutableLinear

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.core import Draw, Extremes, PathSampler, StepState, SupernetCallback
from nni_supernet_ext.data import ImportanceDataSampler
from nni_supernet_ext.errors import CheckpointError, ConfigurationError
from nni_supernet_ext.paths import (
    FairPathSampler,
    GradualPathSampler,
    ImportancePathSampler,
    SandwichSampler,
    UniformPathSampler,
)
from nni_supernet_ext.testing import MethodCase, toy_supernet, train

CASE = MethodCase("SandwichSampler", dict)
LARGEST, SMALLEST = {"width": 8, "op": "conv"}, {"width": 4, "op": "skip"}


class Watch(SupernetCallback):
    """Keep what every update saw."""

    def __init__(self):
        self.roles, self.weights, self.scales, self.gradients, self.batches = [], [], [], [], []

    def on_draws(self, state):
        self.roles.append([draw.role for draw in state.draws])
        self.weights.append([draw.weight for draw in state.draws])
        self.batches.append(state.batch)

    def on_before_update(self, state, optimizer):
        self.scales.append(list(state.scales))
        # Weights that no draw used have none.
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        self.gradients.append([None if g is None else g.clone() for g in grads])


def run(tmp_path, sampler, callbacks=(), epochs=1, **settings):
    watch = Watch()
    arguments = {"paths": sampler, "callbacks": [*callbacks, watch], "validate": 0, **settings}
    return train(CASE, arguments, tmp_path, epochs=epochs), watch


def test_both_ends_are_those_of_the_real_networks(tmp_path):
    sampler = SandwichSampler()
    result, watch = run(tmp_path, sampler)
    supernet = toy_supernet()
    sizes = {
        tuple(sorted(s.items())): sum(p.numel() for p in supernet.extract(s).parameters())
        for s in supernet.domain.grid()
    }
    largest, smallest = max(sizes, key=sizes.get), min(sizes, key=sizes.get)
    for draws in result.draws:
        assert tuple(sorted(draws[0].items())) == largest
        assert tuple(sorted(draws[-1].items())) == smallest
    assert watch.roles == [["largest", "subnet", "subnet", "smallest"]] * 4
    assert sampler.extremes.exact
    assert (sampler.extremes.maximum, sampler.extremes.minimum) == (sizes[largest], sizes[smallest])


def test_ends_follow_the_complexity_given(tmp_path):
    sampler = SandwichSampler(complexity=lambda s: -s["width"] + 0.1 * (s["op"] == "linear"), n_random=0)
    result, _ = run(tmp_path, sampler)
    assert result.draws[0][0] == {"width": 4, "op": "linear"}
    assert result.draws[0][1]["width"] == 8
    by_flops = SandwichSampler(complexity="flops", n_random=0)
    run(tmp_path, by_flops)
    assert (by_flops.extremes.largest, by_flops.extremes.smallest) == (LARGEST, SMALLEST)


def test_the_random_draws_are_the_base_s(tmp_path):
    # Two draws a step of the sandwich's base are two steps of the base alone.
    inside, _ = run(tmp_path, SandwichSampler(n_random=2))
    alone, _ = run(tmp_path, UniformPathSampler(), epochs=2)
    drawn = [draw for step in inside.draws for draw in step[1:3]]
    assert drawn == [step[0] for step in alone.draws]


@pytest.mark.parametrize(
    ("order", "roles"),
    [
        (("smallest", "largest"), ["smallest", "largest"]),
        (("random", "smallest", "largest"), ["subnet", "subnet", "smallest", "largest"]),
        (("largest",), ["largest"]),
    ],
)
def test_order_is_an_argument(tmp_path, order, roles):
    sampler = SandwichSampler(order=order)
    _, watch = run(tmp_path, sampler)
    assert watch.roles == [roles] * 4
    assert sampler.draws_per_step == len(roles) and list(sampler.roles) == roles


def test_gradients_are_summed_or_averaged(tmp_path):
    _, summed = run(tmp_path / "sum", SandwichSampler())
    _, averaged = run(tmp_path / "mean", SandwichSampler(gradients="mean"))
    assert summed.weights == [[1.0] * 4] * 4 and averaged.weights == [[0.25] * 4] * 4
    # Only the first update starts from the same weights.
    for total, mean in zip(summed.gradients[0], averaged.gradients[0], strict=True):
        assert torch.allclose(total, 4 * mean, rtol=1e-5, atol=1e-7)


def test_the_summed_gradient_is_the_sum_over_the_draws(tmp_path):
    result, watch = run(tmp_path, SandwichSampler())
    # The same first batch through each subnet of a fresh, equal supernet.
    supernet = toy_supernet(seed=0)
    images, labels = watch.batches[0]
    for sample in result.draws[0]:
        supernet.activate(sample)
        torch.nn.functional.cross_entropy(supernet.model(images), labels).backward()
    for (name, p), seen in zip(supernet.model.named_parameters(), watch.gradients[0], strict=True):
        assert torch.allclose(p.grad, seen, rtol=1e-4, atol=1e-6), name


def test_one_update_a_batch_or_one_a_subnet(tmp_path):
    _, once = run(tmp_path / "batch", SandwichSampler())
    _, each = run(tmp_path / "subnet", SandwichSampler(), step_every="subnet")
    assert (len(once.gradients), len(each.gradients)) == (4, 16)


def test_with_calr_each_draw_has_its_own_factor(tmp_path):
    sampler, calr = SandwichSampler(), ComplexityAwareLR(gamma_max=4.0)
    result, watch = run(tmp_path, sampler, [calr])
    total = 4
    for t, (draws, scales) in enumerate(zip(result.draws, watch.scales, strict=True)):
        assert scales == pytest.approx([(1 - t / total) ** calr.exponent(draw) for draw in draws])
    # Largest: decays slowest; smallest: fastest.
    assert watch.scales[2][0] == pytest.approx(0.5**0.25) and watch.scales[2][3] == pytest.approx(0.5**4)


def test_with_momentum_separation_needs_one_update_a_subnet(tmp_path):
    with pytest.raises(ConfigurationError, match=r"one cluster.*Use `step_every='subnet'`"):
        run(tmp_path, SandwichSampler(), [MomentumSeparation(by="op")])
    ms = MomentumSeparation(by="op")
    _, watch = run(tmp_path, SandwichSampler(), [ms], step_every="subnet")
    assert len(watch.gradients) == 16


def test_the_base_s_state_is_the_sandwich_s():
    sandwich = SandwichSampler(GradualPathSampler())
    state = sandwich.checkpoint_state()
    assert state["base"] == "GradualPathSampler" and state["state"] == GradualPathSampler().checkpoint_state()
    with pytest.raises(CheckpointError, match="a sandwich of UniformPathSampler, but got GradualPathSampler"):
        SandwichSampler().restore_state(state)


def test_the_base_s_problems_and_claims_are_passed_on(tmp_path):
    class Picky(PathSampler):
        claims = frozenset({"draws"})

        def problems(self, plan):
            yield "The moon is expected to be full, but got new. Wait two weeks."

        def draws(self, rng, state):
            return [Draw(LARGEST)]

    assert SandwichSampler(Picky()).claims == {"draws"}
    with pytest.raises(ConfigurationError, match="Wait two weeks"):
        run(tmp_path, SandwichSampler(Picky()))


def test_a_base_with_a_varying_number_of_draws(tmp_path):
    class Varying(PathSampler):
        draws_per_step = None

        def draws(self, rng: np.random.Generator, state: StepState):
            return [Draw(SMALLEST)] * (state.iteration + 1)

    sampler = SandwichSampler(Varying(), n_random=1)
    assert sampler.draws_per_step is None and sampler.roles is None
    _, watch = run(tmp_path, sampler)
    assert [len(roles) for roles in watch.roles] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"n_random": -1}, "`n_random` is expected to be an integer of at least 0"),
        ({"n_random": "two"}, "`n_random` is expected"),
        ({"order": ("largest", "largest")}, "`order` is expected to name some of"),
        ({"order": ("biggest",)}, "`order` is expected to name some of"),
        ({"order": ("random",), "n_random": 0}, "lead to a draw"),
        ({"gradients": "median"}, "`gradients` is expected to be one of"),
        ({"complexity": lambda sample: 7}, "tell a larger subnet from a smaller one, but got 7 for all"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, match):
    with pytest.raises(ConfigurationError, match=match):
        run(tmp_path, SandwichSampler(**arguments))


class Long(ModelSpace):
    """More subnets than are enumerated: 3^10."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(
            MutableLinear(3, nni.choice(f"width_{index}", [1, 2, 3])) for index in range(10)
        )

    def forward(self, x):
        return sum(layer(x).sum(1, keepdim=True) for layer in self.layers)


def test_a_function_monotone_in_every_choice_has_its_ends_found_in_a_large_space(caplog):
    supernet = toy_supernet(Long())
    sampler = SandwichSampler(complexity=lambda s: sum(i * v for i, v in enumerate(s.values(), 1)))
    plan = type("Plan", (), {"supernet": supernet, "seed": 0})
    with caplog.at_level(logging.INFO, "nni_supernet_ext"):
        sampler.prepare(plan)
    assert set(sampler.extremes.largest.values()) == {3} and set(sampler.extremes.smallest.values()) == {1}
    assert not sampler.extremes.exact and "not proven" in caplog.text


@pytest.mark.parametrize("base", [FairPathSampler, "uniform"])
def test_a_base_that_is_no_sampler_is_refused(base):
    with pytest.raises(ConfigurationError, match=r"`base` is expected to be a path sampler .* Give an instance"):
        SandwichSampler(base)


def test_a_predicate_that_is_no_function_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"`accept` is expected to be a function of the sample .* got 3"):
        run(tmp_path, SandwichSampler(UniformPathSampler(accept=3)))


def test_ends_that_random_subnets_exceed_are_refused():
    supernet = toy_supernet(Long())
    plan = type("Plan", (), {"supernet": supernet, "seed": 0})
    wrong = Extremes({}, {}, 0.0, 5.0, exact=False)
    with pytest.raises(ConfigurationError, match=r"random subnets of .* outside of 0 to 5"):
        SandwichSampler._verify(wrong, lambda s: float(sum(s.values())), plan)


def test_path_and_data_importance_inside_a_sandwich(tmp_path):
    base = ImportancePathSampler(delta=0.5)
    # Meaning: all four draws' gradients are measured, both ends' too.
    run(tmp_path, SandwichSampler(base), epochs=3, data=ImportanceDataSampler(tau=0.5))
    for label, probabilities in base.probabilities.items():
        assert sum(probabilities.values()) == pytest.approx(1.0)
        assert len(set(probabilities.values())) > 1, label


def test_choices_that_the_complexity_does_not_see_are_named(caplog):
    supernet = toy_supernet()
    plan = type("Plan", (), {"supernet": supernet, "seed": 0})
    with caplog.at_level(logging.WARNING, "nni_supernet_ext"):
        SandwichSampler(complexity=lambda sample: sample["width"]).prepare(plan)
    assert "have the same op=" in caplog.text and "width" not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "nni_supernet_ext"):
        SandwichSampler().prepare(plan)
    assert not caplog.text
