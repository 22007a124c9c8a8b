"""Attentive sampling: costs follow the prior, and the picked subnet is the one with the extreme loss."""

from __future__ import annotations

from collections import Counter

import nni
import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace, MutableLinear
from scipy.stats import chisquare

from nni_supernet_ext.core import SupernetCallback
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.paths import AttentivePathSampler, SandwichSampler
from nni_supernet_ext.paths._cost_bins import CostBins
from nni_supernet_ext.testing import MethodCase, ToySpace, toy_supernet, train

CASE = MethodCase("AttentivePathSampler", dict)


class Widths(ModelSpace):
    """Six independent widths of 1 to 4, with the sum as cost."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(
            MutableLinear(3, nni.choice(f"w{index}", [1, 2, 3, 4])) for index in range(6)
        )

    def forward(self, x):
        return sum(layer(x).sum(1, keepdim=True) for layer in self.layers)


def cost(sample):
    return sum(sample.values())


def prepared(**arguments):
    supernet = toy_supernet(Widths())
    sampler = AttentivePathSampler(complexity=cost, **arguments)
    plan = type("Plan", (), {"supernet": supernet, "seed": 0})
    assert list(sampler.problems(plan)) == []
    sampler.prepare(plan)
    return sampler, supernet


def test_all_candidates_of_a_step_lie_in_the_drawn_bin():
    sampler, _ = prepared(n_candidates=8, n_bins=6)
    rng = np.random.default_rng(1)
    bins = [{sampler.bins.bin_of(cost(c)) for c in sampler._candidates(rng)} for _ in range(200)]
    assert all(len(hit) == 1 for hit in bins)
    assert len(set.union(*bins)) >= 5


def test_the_empirical_prior_keeps_the_costs_of_uniform_sampling():
    sampler, _ = prepared(n_candidates=1, n_bins=6, n_prior=4000)
    rng = np.random.default_rng(2)
    drawn = Counter(sampler.bins.bin_of(cost(sampler.draws(rng, None)[0].sample)) for _ in range(3000))
    # The exact distribution of the sum of six dice with four faces, by enumeration.
    exact = Counter(sampler.bins.bin_of(sum(v)) for v in np.ndindex(4, 4, 4, 4, 4, 4) for v in [np.add(v, 1)])
    expected = np.array([exact[b] for b in range(6)]) / 4**6 * 3000
    assert chisquare([drawn[b] for b in range(6)], expected).pvalue > 1e-3


def test_the_uniform_prior_draws_all_occupied_bins_alike():
    sampler, _ = prepared(n_candidates=1, n_bins=6, prior="uniform")
    rng = np.random.default_rng(3)
    drawn = Counter(sampler.bins.bin_of(cost(sampler.draws(rng, None)[0].sample)) for _ in range(1800))
    assert chisquare([drawn[b] for b in range(6)]).pvalue > 1e-3


def test_within_a_bin_choices_vary_and_rare_bins_are_met_exactly():
    sampler, supernet = prepared(n_bins=19, n_prior=2000)
    rng = np.random.default_rng(4)
    target = sampler.bins.bin_of(15)
    drawn = [sampler.bins.draw(rng, target, supernet.domain) for _ in range(300)]
    assert {cost(sample) for sample in drawn} == {15}
    assert len({tuple(s.values()) for s in drawn}) > 100


def test_an_impossible_combination_falls_back_to_a_known_subnet():
    # Two members with nothing in common but their cost: mixing them rarely keeps it.
    members = [{f"w{i}": v for i, v in enumerate(values)} for values in ((1, 1, 1, 4, 4, 4), (4, 4, 4, 1, 1, 1))]
    bins = CostBins([*members, dict.fromkeys(members[0], 1)], lambda s: 1 if s in members else 0, 2)
    supernet = toy_supernet(Widths())
    rng = np.random.default_rng(0)
    assert all(bins.draw(rng, 1, supernet.domain) in members for _ in range(5))


@pytest.mark.parametrize(("pick", "wanted"), [("best", max), ("worst", min)])
def test_a_predictor_picks_without_a_forward_pass(pick, wanted):
    sampler, _ = prepared(pick=pick, n_candidates=5, n_bins=1, predictor=lambda s: s["w0"] * 10 + s["w1"])
    rng, twin = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(20):
        candidates = sampler._candidates(twin)
        picked = sampler.draws(rng, None)[0].sample
        assert picked == wanted(candidates, key=lambda s: s["w0"] * 10 + s["w1"])


@pytest.mark.parametrize(("pick", "wanted"), [("best", max), ("worst", min)])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_a_prediction_that_is_not_finite_is_not_picked(pick, wanted, broken):
    def predict(sample):
        return broken if sample["w0"] > 2 else float(sample["w1"])

    sampler, _ = prepared(pick=pick, n_candidates=5, n_bins=1, predictor=predict)
    rng, twin = np.random.default_rng(6), np.random.default_rng(6)
    compared = 0
    for _ in range(20):
        finite = [candidate for candidate in sampler._candidates(twin) if candidate["w0"] <= 2]
        picked = sampler.draws(rng, None)[0].sample
        if finite:
            assert picked == wanted(finite, key=predict)
            compared += 1
    assert compared > 10


class Watch(SupernetCallback):
    def __init__(self):
        self.batches = []

    def on_draws(self, state):
        self.batches.append(state.batch)


@pytest.mark.parametrize("pick", ["best", "worst"])
def test_the_loss_on_the_batch_picks(tmp_path, pick):
    candidates = []

    class Spy(AttentivePathSampler):
        def _candidates(self, rng):
            candidates.append(super()._candidates(rng))
            return candidates[-1]

    watch = Watch()
    settings = {"paths": Spy(pick, n_candidates=4, n_bins=1), "callbacks": [watch], "validate": 0}
    result = train(CASE, settings, tmp_path, epochs=1)
    # The first step by hand: losses of all candidates in training mode, from untrained weights.
    supernet = toy_supernet(seed=0)
    images, labels = watch.batches[0]
    losses = []
    for sample in candidates[0]:
        supernet.activate(sample)
        losses.append(torch.nn.functional.cross_entropy(supernet.model(images), labels).item())
    chosen = losses.index(min(losses) if pick == "best" else max(losses))
    assert len(set(losses)) > 1
    assert result.draws[0][0] == candidates[0][chosen]


def test_comparing_leaves_statistics_and_logs_alone(tmp_path):
    # The same subnet whatever is picked, so the training must be that of a single candidate.
    class Same(AttentivePathSampler):
        def _candidates(self, rng):
            return [{"width": 8, "op": "conv"}] * self.n_candidates

    several = train(CASE, {"paths": Same(n_candidates=3, n_bins=1)}, tmp_path / "3", epochs=1)
    one = train(CASE, {"paths": Same(n_candidates=1, n_bins=1)}, tmp_path / "1", epochs=1)
    for name, value in one.weights.items():
        assert torch.equal(value, several.weights[name]), name
    metrics = [run.evaluator.trainer.callback_metrics for run in (several, one)]
    assert metrics[0]["train_loss"] == metrics[1]["train_loss"]


def test_a_subnet_without_a_finite_loss_is_not_picked(tmp_path):
    class Broken(ToySpace):
        def forward(self, x):
            y = super().forward(x)
            return y * float("nan") if self.training and self.op._sampled == "skip" else y

    case = MethodCase("AttentivePathSampler", dict, space=Broken)
    for pick in ("best", "worst"):
        paths = AttentivePathSampler(pick, n_candidates=12, n_bins=1)
        result = train(case, {"paths": paths, "validate": 0}, tmp_path / pick, epochs=1)
        assert all(step[0]["op"] != "skip" for step in result.draws)


def test_inside_a_sandwich(tmp_path):
    sampler = SandwichSampler(AttentivePathSampler(n_candidates=2, n_bins=3, n_prior=60))
    result = train(CASE, {"paths": sampler, "validate": 0}, tmp_path, epochs=1)
    assert all(len(step) == 4 for step in result.draws)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"pick": "middle"}, "`pick` is expected to be one of"),
        ({"prior": "flat"}, "`prior` is expected to be one of"),
        ({"n_candidates": 0}, "`n_candidates` is expected to be a positive integer"),
        ({"n_bins": 2.5}, "`n_bins` is expected"),
        ({"predictor": 3}, "`predictor` is expected to be a function"),
        ({"complexity": lambda sample: 1}, "`complexity` is expected to differ between subnets"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, match):
    with pytest.raises(ConfigurationError, match=match):
        train(CASE, {"paths": AttentivePathSampler(**arguments)}, tmp_path, epochs=1)
