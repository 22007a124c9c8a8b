"""Subnets are drawn in proportion to a power of their complexity."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nni_supernet_ext.core import StepState
from nni_supernet_ext.errors import ConfigurationError, ConstraintError
from nni_supernet_ext.paths import ComplexityPathSampler, UniformPathSampler
from nni_supernet_ext.testing import toy_supernet

SIZES = {"conv": 1.0, "linear": 2.0, "skip": 5.0}


class FakePlan:
    supernet = toy_supernet()

    def example_inputs(self):
        raise AssertionError("not needed")


def frequencies(sampler, n: int = 12_000) -> dict[str, float]:
    sampler.prepare(FakePlan())
    rng = np.random.default_rng(0)
    counts = Counter(sampler.draws(rng, StepState())[0].sample["op"] for _ in range(n))
    return {op: counts[op] / n for op in SIZES}


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        (1.0, {"conv": 1 / 8, "linear": 2 / 8, "skip": 5 / 8}),
        (2.0, {"conv": 1 / 30, "linear": 4 / 30, "skip": 25 / 30}),
        (-1.0, {"conv": 10 / 17, "linear": 5 / 17, "skip": 2 / 17}),
        (0.0, {"conv": 1 / 3, "linear": 1 / 3, "skip": 1 / 3}),
    ],
)
def test_probabilities_are_proportional_to_the_power_of_the_complexity(power, expected) -> None:
    found = frequencies(ComplexityPathSampler(lambda sample: SIZES[sample["op"]], power))
    assert all(abs(found[op] - expected[op]) < 0.02 for op in SIZES)  # over four standard deviations


def test_parameters_are_the_default_measure() -> None:
    sampler = ComplexityPathSampler()
    sampler.prepare(FakePlan())
    rng = np.random.default_rng(0)
    counts = Counter(tuple(sorted(sampler.draws(rng, StepState())[0].sample.items())) for _ in range(12_000))
    supernet = FakePlan.supernet
    sizes = {}
    for op in SIZES:
        for width in (4, 8):
            network = supernet.extract({"op": op, "width": width})
            sizes[("op", op), ("width", width)] = sum(p.numel() for p in network.parameters())
    total = sum(sizes.values())
    assert all(abs(counts[key] / 12_000 - size / total) < 0.02 for key, size in sizes.items())


def test_power_zero_draws_what_uniform_sampling_draws() -> None:
    samplers = [ComplexityPathSampler(power=0.0), UniformPathSampler()]
    drawn = []
    for sampler in samplers:
        sampler.prepare(FakePlan())
        rng = np.random.default_rng(3)
        drawn.append([sampler.draws(rng, StepState())[0].sample for _ in range(50)])
    assert drawn[0] == drawn[1]


def test_bad_arguments_are_refused() -> None:
    for power in (float("nan"), "1", None):
        problems = list(ComplexityPathSampler(power=power).problems(FakePlan()))
        assert len(problems) == 1 and "`power` is expected to be a finite number" in problems[0]
    with pytest.raises(ConfigurationError, match="positive and finite for every subnet"):
        ComplexityPathSampler(lambda sample: 0.0).prepare(FakePlan())


def test_a_power_that_leaves_hardly_any_subnet_is_refused(monkeypatch):
    monkeypatch.setattr("nni_supernet_ext.paths.complexity._PATIENCE", 50)
    sampler = ComplexityPathSampler(lambda sample: 1e-9 if sample["width"] == 8 else 1.0, power=9)
    sampler.prepare(FakePlan())
    sampler._peak = 1e6
    with pytest.raises(ConstraintError, match="`power` is expected to leave enough subnets a chance, but got 9"):
        sampler.draws(np.random.default_rng(0), StepState())
