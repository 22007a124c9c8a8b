"""What the law of the hot path must catch: values that are read in every step."""

from __future__ import annotations

import pytest

from nni_supernet_ext import testing
from nni_supernet_ext.core import SupernetCallback
from nni_supernet_ext.core.guard import NonFiniteGuard


class Reading(SupernetCallback):
    """Reads every loss."""

    def on_after_draw(self, state):
        self.loss = state.loss.item()


class Gathering(SupernetCallback):
    """Reads all losses once an epoch."""

    def prepare(self, plan):
        self.total = 0.0

    def on_after_draw(self, state):
        self.total = self.total + state.loss

    def on_train_epoch_end(self, trainer, module):
        self.loss, self.total = float(self.total), 0.0


def _case(callback, **reasons):
    return testing.MethodCase("Mine", lambda: {"callbacks": [callback()]}, no_neutral="It only watches.", **reasons)


def test_a_read_in_every_step(tmp_path):
    with pytest.raises(
        AssertionError, match=r"Mine reads values from the device in its steps: \d+ times in 4 further"
    ):
        testing.check_hot_path(_case(Reading), tmp_path)


def test_a_read_in_every_epoch(tmp_path):
    testing.check_hot_path(_case(Gathering), tmp_path)


def test_a_reason_allows_reads(tmp_path):
    testing.check_hot_path(_case(Reading, reads_by_design="It shows them."), tmp_path)


def test_a_reason_without_reads(tmp_path):
    with pytest.raises(AssertionError, match="reads nothing in its steps, in spite of `reads_by_design`"):
        testing.check_hot_path(_case(Gathering, reads_by_design="It shows them."), tmp_path)


def _limited(batches):
    def evaluator(**arguments):
        return testing.toy_evaluator(
            **{**arguments, "limit_train_batches": min(batches, arguments["limit_train_batches"])}
        )

    return evaluator


def test_two_batches_an_epoch_are_enough(tmp_path):
    testing.check_hot_path(_case(Gathering, evaluator=_limited(2)), tmp_path / "gathering")
    with pytest.raises(AssertionError, match="2 further steps"):
        testing.check_hot_path(_case(Reading, evaluator=_limited(2)), tmp_path / "reading")


def test_a_single_batch_is_not(tmp_path):
    with pytest.raises(AssertionError, match=r"trains on a single batch an epoch. Give its evaluator four"):
        testing.check_hot_path(_case(Gathering, evaluator=_limited(1)), tmp_path)


def test_losses_are_watched_again(tmp_path):
    watch = NonFiniteGuard.watch
    with pytest.raises(ZeroDivisionError):
        testing.check_hot_path(_case(lambda: 1 / 0), tmp_path)
    assert NonFiniteGuard.watch is watch
