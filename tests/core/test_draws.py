"""Only subnets of the space are trained: what else a sampler returns is refused by its name."""

from __future__ import annotations

from functools import partial

import nni
import numpy as np
import pytest
import torch
from nni.mutable import ExpressionConstraint
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch import DARTS
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import nn

from nni_supernet_ext.core import Domain, Draw, PathSampler
from nni_supernet_ext.core import draw_checks as module
from nni_supernet_ext.core.draw_checks import DrawChecks
from nni_supernet_ext.errors import ConfigurationError, SpaceError
from nni_supernet_ext.strategies import ChoiceSplit, FewShotStrategy, SupernetStrategy
from nni_supernet_ext.testing import MethodCase, ToySpace, toy_evaluator
from nni_supernet_ext.testing.training import train

CONV = {"op": "conv", "width": 8}


class Returns(PathSampler):
    """Return something, whatever it is."""

    draws_per_step = None

    def __init__(self, what):
        self.what = what

    def draws(self, rng, state):
        return self.what


class Constrained(ToySpace):
    """Wide convolutions are forbidden."""

    def __init__(self):
        super().__init__()
        self.add_mutable(Forbidding(label="budget"))


class Forbidding(ExpressionConstraint):
    asked = 0

    def __init__(self, label):
        super().__init__(nni.choice("width", [4, 8]) <= 4, label=label)

    def check_contains(self, sample):
        Forbidding.asked += 1
        return super().check_contains(sample)


def _checked(space, *draws):
    return DrawChecks(Returns(None), Domain(space))(draws)


@pytest.mark.parametrize(
    ("what", "got"),
    [
        (None, "got None"),
        (Draw(CONV), "got a Draw"),
        ([CONV], "got dict in it"),
        (CONV, "got a dict"),
        ("conv", "got a str"),
        (iter([Draw(CONV)]), "got a list_iterator"),
        ([Draw(CONV), None], "got NoneType in it"),
        ([Draw(["conv", 8])], "got a draw whose sample is list"),
    ],
)
def test_what_is_no_list_of_draws_is_refused(tmp_path, what, got):
    message = rf"`draws` of Returns is expected to return a list of Draw, but {got}\. Return `\[Draw\(sample\)\]`"
    with pytest.raises(ConfigurationError, match=message):
        train(MethodCase("case", dict), {"paths": Returns(what)}, tmp_path)


@pytest.mark.parametrize(
    ("sample", "got"),
    [
        ({"op": "nothing", "width": 8}, r"got 'nothing' for 'op', which takes \['conv', 'linear', 'skip'\]"),
        ({"op": ["conv"], "width": 8}, r"got \['conv'\] for 'op', which takes"),
        ({"op": "conv", "width": 5}, "got 5 for 'width', which takes"),
        ({"op": "conv"}, r"got no \['width'\] among the labels"),
        ({**CONV, "nonsense": 3}, r"got unknown \['nonsense'\] among the labels"),
        ({"op": "conv", "Width": 8}, r"got no \['width'\] and unknown \['Width'\] among the labels"),
    ],
)
def test_samples_outside_the_space_are_refused(tmp_path, sample, got):
    with pytest.raises(
        SpaceError, match=rf"`draws` of Returns is expected to return subnets .*{got}.*\. Draw with"
    ):
        train(MethodCase("case", dict), {"paths": Returns([Draw(CONV), Draw(sample)])}, tmp_path)


def test_samples_against_the_constraints_are_refused():
    space = Constrained()
    assert _checked(space, Draw({"op": "conv", "width": 4}))
    message = "`draws` of Returns .*, but got one that the space's own constraints forbid, in .*width=8"
    for sample in (CONV, {"width": 8, "op": "conv"}):
        with pytest.raises(SpaceError, match=message):
            _checked(space, Draw(sample))


def test_constraints_are_asked_once_for_each_sample():
    checks = DrawChecks(Returns(None), Domain(Constrained()))
    Forbidding.asked = 0
    for _ in range(5):
        for op in ("conv", "skip"):
            checks([Draw({"width": 4, "op": op}), Draw({"op": op, "width": 4})])
    assert Forbidding.asked == 2


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    domain = Domain(Constrained())
    checks = DrawChecks(Returns(None), domain)
    for sample in [*domain.grid()] * 2:
        assert checks([Draw(sample)])
        assert len(checks._allowed) <= 2
    with pytest.raises(SpaceError, match="constraints forbid"):
        checks([Draw(CONV)])


def test_candidates_that_a_part_of_the_space_lacks_are_refused():
    domain = Domain(ToySpace()).restricted({"op": ["skip", "linear"]})
    checks = DrawChecks(Returns(None), domain)
    assert checks([Draw({"op": "skip", "width": 8})])
    with pytest.raises(SpaceError, match=r"got 'conv' for 'op', which takes \['skip', 'linear'\], in"):
        checks([Draw(CONV)])


def test_few_shot_training_refuses_candidates_of_other_parts(tmp_path):
    base = SupernetStrategy(paths=Returns([Draw(CONV)]), checkpoint_dir=tmp_path / "checkpoint", record=False)
    few_shot = FewShotStrategy(base, [ChoiceSplit("op")])
    with pytest.raises(
        SpaceError, match=r"`draws` of Returns .*got 'conv' for 'op', which takes \['(linear|skip)'\]"
    ):
        few_shot(RawFormatModelSpace(ToySpace(), toy_evaluator(1, root=tmp_path)), SequentialExecutionEngine())


def test_equal_values_of_other_types_pass_as_nni_takes_them():
    """NNI compares by `==`; so a number of NumPy is a candidate, and so is a label of NNI's own type."""
    (label,) = [m.label for m in ToySpace().simplify().values() if str(m.label) == "op"]
    assert _checked(ToySpace(), Draw({label: np.str_("conv"), "width": np.int64(8)}))


class Inputs(ModelSpace):
    """One choice of two inputs, and one of any number."""

    def __init__(self):
        super().__init__()
        self.two = InputChoice(n_candidates=4, n_chosen=2, label="two")
        self.some = InputChoice(n_candidates=3, n_chosen=None, label="some")

    def forward(self, x):
        return self.two([x] * 4) + self.some([x] * 3)


@pytest.mark.parametrize(
    "space", [Inputs, partial(DARTS, width=4, num_cells=3, dataset="cifar")], ids=["inputs", "cells"]
)
def test_choices_of_several_inputs_and_cells_pass(space):
    domain = Domain(space())
    checks = DrawChecks(Returns(None), domain)
    rng = np.random.default_rng(0)
    several = [label for label in domain.mutables if label not in domain.candidates]
    assert several
    for _ in range(20):
        sample = domain.random(rng)
        assert checks([Draw(sample)])
    with pytest.raises(SpaceError, match=f"got .*99.* for '{several[0]}', which takes"):
        checks([Draw({**sample, several[0]: [99]})])
    with pytest.raises(SpaceError, match=f"got 0 for '{several[0]}'"):
        checks([Draw({**sample, several[0]: 0})])


def test_continuous_choices_pass_within_their_bounds():
    class Continuous(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = LayerChoice([nn.Identity(), nn.Flatten()], label="op")
            self.rate = nni.uniform("rate", 0.0, 0.5)
            self.add_mutable(self.rate)

        def forward(self, x):
            return torch.flatten(self.op(x), 1)

    domain = Domain(Continuous())
    checks = DrawChecks(Returns(None), domain)
    rng = np.random.default_rng(0)
    for _ in range(10):
        assert checks([Draw(domain.random(rng))])
    for value in (0.7, "much", None, [0.1]):
        with pytest.raises(SpaceError, match=r"`draws` of Returns .* for 'rate', which takes .*0\.5"):
            checks([Draw({"op": 0, "rate": value})])
