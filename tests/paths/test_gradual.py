"""Successive subnets differ in one choice; over time all are drawn equally often."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_supernet_ext.core import StepState
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.paths import GradualPathSampler
from nni_supernet_ext.testing import ToyCellSpace


def walker(space: ModelSpace) -> GradualPathSampler:
    sampler = GradualPathSampler()
    sampler.prepare(SimpleNamespace(supernet=SimpleNamespace(domain=Domain(space))))
    return sampler


def test_every_step_changes_exactly_one_choice_and_all_subnets_are_drawn_equally() -> None:
    sampler, rng = walker(ToyCellSpace()), np.random.default_rng(0)
    samples = [sampler.draws(rng, StepState())[0].sample for _ in range(9000)]
    changes = [sum(before[label] != after[label] for label in before) for before, after in pairwise(samples)]
    assert set(changes) == {1}
    counts = Counter((s["edge_0"], s["edge_1"]) for s in samples)
    assert len(counts) == 9
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_the_walk_goes_on_from_its_checkpoint() -> None:
    one, two = walker(ToyCellSpace()), walker(ToyCellSpace())
    rng = np.random.default_rng(0)
    for _ in range(5):
        last = one.draws(rng, StepState())[0].sample
    two.restore_state(one.checkpoint_state())
    state = rng.bit_generator.state
    following = [one.draws(rng, StepState())[0].sample for _ in range(5)]
    rng.bit_generator.state = state
    assert [two.draws(rng, StepState())[0].sample for _ in range(5)] == following
    assert sum(last[label] != following[0][label] for label in last) == 1


def test_choices_with_one_candidate_are_left_alone() -> None:
    class Single(ModelSpace):
        def __init__(self, free: int) -> None:
            super().__init__()
            self.a = LayerChoice({"x": nn.Identity()}, label="a")
            self.b = LayerChoice({str(i): nn.Identity() for i in range(free)}, label="b")

    sampler, rng = walker(Single(2)), np.random.default_rng(0)
    drawn = [sampler.draws(rng, StepState())[0].sample["b"] for _ in range(6)]
    assert all(before != after for before, after in pairwise(drawn))
    frozen = walker(Single(1))
    assert [frozen.draws(rng, StepState())[0].sample for _ in range(3)] == [{"a": "x", "b": "0"}] * 3


def test_choices_are_picked_equally_often_whatever_their_number_of_candidates() -> None:
    class Unequal(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            for label, n in (("a", 2), ("b", 6)):
                setattr(self, label, LayerChoice({str(i): nn.Identity() for i in range(n)}, label=label))

    sampler, rng = walker(Unequal()), np.random.default_rng(0)
    samples = [sampler.draws(rng, StepState())[0].sample for _ in range(8001)]
    changed = Counter(
        label for before, after in pairwise(samples) for label in "ab" if before[label] != after[label]
    )
    assert abs(changed["a"] - 4000) < 4 * 45  # four standard deviations of 8,000 fair coins
