"""The laws, over every shipped method."""

from __future__ import annotations

import pytest

from nni_supernet_ext import testing
from nni_supernet_ext.testing.cases import CASES

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
    testing.check_resume(CASES, tmp_path)


@pytest.mark.timeout(900)
def test_two_ranks(tmp_path):
    testing.check_ranks(CASES, tmp_path)


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
