"""Samples of a space: distribution, priors, constraints, validation."""

from __future__ import annotations

from collections import Counter

import nni
import numpy as np
import pytest
from nni.mutable import ExpressionConstraint
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableConv2d
from scipy.stats import chisquare
from torch import nn

from nni_supernet_ext.core import Domain
from nni_supernet_ext.errors import ConstraintError, SpaceError
from nni_supernet_ext.testing import ToySpace


class Mixed(ModelSpace):
    def __init__(self):
        super().__init__()
        self.prior = LayerChoice([nn.ReLU(), nn.Tanh()], label="prior", weights=[0.9, 0.1])
        self.inputs = InputChoice(4, n_chosen=2, label="inputs")
        self.kernel = MutableConv2d(3, 3, nni.choice("kernel", [1, 3, 5]))


class Bounded(ModelSpace):
    def __init__(self):
        super().__init__()
        a, b = nni.choice("a", [1, 2, 3]), nni.choice("b", [1, 2, 3])
        self.conv = MutableConv2d(a, b, 1)
        self.add_mutable(ExpressionConstraint(a + b <= 3, label="small"))


def _draw(space, n=3000):
    domain, rng = Domain(space), np.random.default_rng(0)
    return domain, [domain.random(rng) for _ in range(n)]


def test_choices_are_uniform():
    _, samples = _draw(ToySpace())
    counts = Counter((sample["op"], sample["width"]) for sample in samples)
    assert len(counts) == 6
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_priors_are_kept():
    _, samples = _draw(Mixed())
    counts = Counter(sample["prior"] for sample in samples)
    first, second = counts["0"] + counts[0], counts["1"] + counts[1]
    assert chisquare([first, second], [2700, 300]).pvalue > 0.001


def test_several_inputs_are_distinct_sorted_and_uniform():
    domain, samples = _draw(Mixed())
    counts = Counter(tuple(sample["inputs"]) for sample in samples)
    assert len(counts) == 6
    assert all(a < b for a, b in counts)
    assert chisquare(list(counts.values())).pvalue > 0.001
    assert domain.size() == 2 * 6 * 3


def test_constraints_of_the_space_hold():
    domain, samples = _draw(Bounded(), 500)
    assert domain.labels == ("a", "b")
    assert {(s["a"], s["b"]) for s in samples} == {(1, 1), (1, 2), (2, 1)}
    assert len(list(domain.grid())) == 3


def test_grid_enumerates_the_space():
    samples = list(Domain(ToySpace()).grid())
    assert len({tuple(sorted(s.items())) for s in samples}) == len(samples) == 6


def test_constraint_nobody_satisfies():
    with pytest.raises(ConstraintError, match="1000 random samples that violate"):
        Domain(ToySpace()).random(np.random.default_rng(0), accept=lambda sample: False)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"op": "conv"}, "choice `width`"),
        ({"op": "conv", "width": 5}, "5 not found"),
        ({"op": "conv", "width": 4, "depth": 1}, r"use the labels \['width', 'op'\], but got \['depth'\]"),
    ],
)
def test_wrong_samples_are_refused(sample, message):
    with pytest.raises(SpaceError, match=message):
        Domain(ToySpace()).validate(sample)
