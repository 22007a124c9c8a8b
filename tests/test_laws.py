"""The laws, over every shipped method."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

import pytest

from nni_supernet_ext import testing
from nni_supernet_ext.testing.cases import CASES

EPOCHS = 2
"""Enough for the shipped methods, which use in an epoch what they gathered in the one before."""

each_method = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@each_method
def test_neutral(case, tmp_path):
    testing.check_neutral(case, tmp_path)


@each_method
def test_seed(case, tmp_path):
    testing.check_seed(case, tmp_path)


@each_method
def test_freeze(case, tmp_path):
    testing.check_freeze(case, tmp_path)


@each_method
def test_clean(case, tmp_path):
    testing.check_clean(case, tmp_path)


def test_commute(tmp_path):
    testing.check_commute(CASES, tmp_path)


def test_compose(tmp_path):
    outcomes = testing.check_compose(CASES, tmp_path)
    assert outcomes["ComplexityAwareLR", "MomentumSeparation"] == "works"
    assert tuple(case.name for case in CASES) in outcomes or len(CASES) > 5


@pytest.mark.timeout(900)
def test_resume_in_a_fresh_process(tmp_path):
    testing.check_resume(CASES, tmp_path, epochs=EPOCHS)


@pytest.mark.timeout(900)
def test_two_ranks(tmp_path):
    testing.check_ranks(CASES, tmp_path, epochs=EPOCHS)


def _constant(callbacks=list, **reasons):
    """The sampler without randomness of PathSampler's docstring."""
    from nni_supernet_ext.core import Draw, PathSampler

    class Constant(PathSampler):
        def draws(self, rng, state):
            return [Draw({"op": "conv", "width": 4})]

    settings = lambda: {"paths": Constant(), "callbacks": callbacks()}  # noqa: E731
    return testing.MethodCase("Constant", settings, no_neutral="It trains one subnet only.", **reasons)


def test_seed_of_a_method_without_randomness(tmp_path):
    testing.check_seed(_constant(no_randomness="It always trains the same subnet."), tmp_path)


def test_two_cases_are_composed_once(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr("nni_supernet_ext.testing.laws.compose.train", lambda *args, **kwargs: trained.append(args))
    pair = [case for case in CASES if case.name in ("FairPathSampler", "TaskLoss")]
    assert testing.check_compose(pair, tmp_path) == {("FairPathSampler", "TaskLoss"): "works"}
    assert len(trained) == 1


@pytest.mark.timeout(900)
def test_the_guides_examples(tmp_path, monkeypatch):
    """What docs/adding_a_method.md shows as correct is correct, in fresh processes too."""
    monkeypatch.chdir(tmp_path)
    guide = Path(__file__).resolve().parents[1] / "docs" / "adding_a_method.md"
    namespace = {"__name__": "guide"}
    for block in re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(guide), "exec"), namespace)
    cases = namespace["MINE"]
    assert len(cases) == 8
    for case in cases:
        testing.check_neutral(case, tmp_path / case.name / "neutral")
        testing.check_seed(case, tmp_path / case.name / "seed")
        testing.check_freeze(case, tmp_path / case.name / "freeze")
        testing.check_clean(case, tmp_path / case.name / "clean")
        testing.check_hot_path(case, tmp_path / case.name / "hot_path")
    testing.check_resume(cases, tmp_path / "resume", epochs=EPOCHS)
    testing.check_ranks(cases, tmp_path / "ranks", epochs=EPOCHS)


class TestTheLawsCanFail:
    """A method that breaks a law is caught by it."""

    def _case(self, callback):
        settings = lambda: {"callbacks": [callback()]}  # noqa: E731
        return testing.MethodCase("Broken", settings, settings)

    def test_neutral(self, tmp_path):
        from nni_supernet_ext.callbacks import ComplexityAwareLR

        with pytest.raises(AssertionError, match="at its neutral setting changes the training"):
            testing.check_neutral(self._case(ComplexityAwareLR), tmp_path)

    def test_seed(self, tmp_path):
        import numpy as np

        from nni_supernet_ext.core import SupernetCallback

        class Greedy(SupernetCallback):
            def on_draws(self, state):
                np.random.rand()

        with pytest.raises(AssertionError, match="changes the global random state"):
            testing.check_seed(self._case(Greedy), tmp_path)

    def test_seed_that_is_ignored(self, tmp_path):
        with pytest.raises(AssertionError, match="Constant ignores the seed"):
            testing.check_seed(_constant(), tmp_path)

    def test_no_randomness_excuses_only_the_other_seed(self, tmp_path):
        from nni_supernet_ext.core import SupernetCallback

        class Unseeded(SupernetCallback):
            """Scales the gradients by a number of its own in every run."""

            def __init__(self):
                self.factor = next(factors)

            def on_draws(self, state):
                state.scales = [self.factor] * len(state.draws)

        factors = count(1.0)
        case = _constant(callbacks=lambda: [Unseeded()], no_randomness="It always trains the same subnet.")
        with pytest.raises(AssertionError, match=r"trains other weights .* with the same seed"):
            testing.check_seed(case, tmp_path)

    def test_clean(self, tmp_path):
        from nni_supernet_ext.core import SupernetCallback

        class Littering(SupernetCallback):
            def prepare(self, plan):
                plan.supernet.model.register_forward_hook(lambda *arguments: None)

        with pytest.raises(AssertionError, match="leaves hooks"):
            testing.check_clean(self._case(Littering), tmp_path)

    def test_resume(self, tmp_path):
        from nni_supernet_ext.core import SupernetCallback

        class Forgetful(SupernetCallback):
            """Scales the third step's gradient, counting from wherever it starts."""

            def prepare(self, plan):
                self.steps = 0

            def on_draws(self, state):
                self.steps += 1
                state.scales = [2.0 if self.steps == 6 else 1.0] * len(state.draws)

        with pytest.raises(AssertionError, match="trains other weights after resuming"):
            testing.check_resume([self._case(Forgetful)], tmp_path)

    def test_compose(self, tmp_path):
        from nni_supernet_ext.core import SupernetCallback
        from nni_supernet_ext.errors import ConfigurationError

        class Curt(SupernetCallback):
            def problems(self, plan):
                return ["no"]

        class Crash(SupernetCallback):
            def on_draws(self, state):
                raise ZeroDivisionError

        cases = [CASES[0], self._case(Curt)]
        with pytest.raises(AssertionError, match="refused without a remedy"):
            testing.check_compose(cases, tmp_path)
        with pytest.raises(ZeroDivisionError):
            testing.check_compose([CASES[0], self._case(Crash)], tmp_path)
        assert issubclass(ConfigurationError, ValueError)
