"""What parts declare is heard or refused, and what they left is removed at the end, whatever happens."""

from __future__ import annotations

import logging

import pytest
import pytorch_lightning as pl

from nni_supernet_ext.core import Objective, SupernetCallback
from nni_supernet_ext.core.finishing import do_all
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.objectives import TaskLoss
from nni_supernet_ext.paths import SandwichSampler, UniformPathSampler
from nni_supernet_ext.testing import MethodCase
from nni_supernet_ext.testing.toys import ToyModule
from nni_supernet_ext.testing.training import train

CASE = MethodCase("case", dict)


class Told(SupernetCallback):
    """Note what is called, and need `prepare` for `finish`, as a part that takes hooks off a model does."""

    def __init__(self, notes, name, refuses=False, fails_in=()):
        self.notes, self.name, self.refuses, self.fails_in = notes, name, refuses, fails_in

    def problems(self, plan):
        if self.refuses and plan.optimizer is not None:
            yield "The real refusal. Remedy it."

    def prepare(self, plan):
        self.notes.append(f"prepare {self.name}")
        self._fail("prepare")
        self.handle = self.name

    def on_draws(self, state):
        self._fail("step")

    def finish(self):
        self.notes.append(f"finish {self.name}")
        self._fail("finish")
        del self.handle

    def _fail(self, where):
        if where in self.fails_in:
            raise RuntimeError(f"{self.name} fails in {where}")


class Sampler(Told, UniformPathSampler):
    """A sampler that is told too; no Lightning hook is its own."""

    def __init__(self, notes, name, **options):
        UniformPathSampler.__init__(self)
        Told.__init__(self, notes, name, **options)

    def prepare(self, plan):
        Told.prepare(self, plan)
        UniformPathSampler.prepare(self, plan)


def test_a_refusal_of_the_second_round_finishes_nothing(tmp_path):
    notes = []
    callbacks = [Told(notes, "a"), Told(notes, "b", refuses=True)]
    with pytest.raises(ConfigurationError, match=r"^The real refusal"):
        train(CASE, {"callbacks": callbacks}, tmp_path)
    assert notes == []


def test_a_run_that_was_over_finishes_nothing(tmp_path):
    notes = []
    settings = {"checkpoint_dir": tmp_path / "checkpoint"}
    train(CASE, {**settings, "callbacks": [Told(notes, "a")]}, tmp_path / "first")
    assert notes == ["prepare a", "finish a"]
    train(CASE, {**settings, "callbacks": [Told(notes, "b")]}, tmp_path / "second")
    assert notes == ["prepare a", "finish a"]


def test_all_prepared_parts_are_finished_after_one_could_not_be_prepared(tmp_path):
    """The part that failed is finished as well: it may have set up half of what it needs."""
    notes = []
    callbacks = [Told(notes, "a"), Told(notes, "b", fails_in=("prepare",)), Told(notes, "c")]
    with pytest.raises(RuntimeError, match=r"^b fails in prepare$"):
        train(CASE, {"callbacks": callbacks}, tmp_path)
    assert notes == ["prepare a", "prepare b", "finish a", "finish b"]


def test_an_error_of_the_step_is_not_hidden_by_those_of_finish(tmp_path):
    notes = []
    callbacks = [Told(notes, "a", fails_in=("step", "finish")), Told(notes, "b", fails_in=("finish",))]
    with pytest.raises(RuntimeError, match=r"^a fails in step$"):
        train(CASE, {"callbacks": callbacks}, tmp_path)
    assert notes[-2:] == ["finish a", "finish b"]


def test_a_finish_that_fails_after_a_good_run_is_raised_once_all_are_finished(tmp_path, monkeypatch):
    from nni_supernet_ext.core.validation import SubnetValidation

    closed = []
    monkeypatch.setattr(SubnetValidation, "close", lambda self: closed.append(self))
    notes = []
    callbacks = [Told(notes, "a", fails_in=("finish",)), Told(notes, "b", fails_in=("finish",)), Told(notes, "c")]
    with pytest.raises(RuntimeError, match=r"^a fails in finish$"):
        train(CASE, {"callbacks": callbacks}, tmp_path)
    assert notes[-3:] == ["finish a", "finish b", "finish c"]
    assert len(closed) == 1


def test_a_run_in_an_error_handler_still_reports_its_finish(tmp_path):
    """Another error that the caller is handling is not one of this run."""
    try:
        raise KeyError("the caller's")
    except KeyError:
        with pytest.raises(RuntimeError, match=r"^a fails in finish$"):
            train(CASE, {"callbacks": [Told([], "a", fails_in=("finish",))]}, tmp_path)


def test_wrapped_parts_are_finished_once(tmp_path):
    notes = []
    sandwich = SandwichSampler(base=Sampler(notes, "inner"))
    train(CASE, {"paths": sandwich}, tmp_path)
    assert notes == ["prepare inner", "finish inner"]


def test_later_errors_are_logged(caplog):
    def fail(name):
        raise ValueError(name)

    done = []
    steps = [lambda: fail("one"), lambda: fail("two"), lambda: done.append(True)]
    with caplog.at_level(logging.ERROR), pytest.raises(ValueError, match=r"^one$"):
        do_all(steps, failed=False)
    assert done == [True] and "ValueError('two')" in caplog.text and "one" not in caplog.messages[0]


@pytest.mark.parametrize("slot", ["paths", "callbacks"])
@pytest.mark.parametrize(
    ("claims", "remedy"),
    [("lr", r"got 'lr'\. Write \{'lr'\}\."), (None, "got None"), ([1], r"got \[1\]"), (b"lr", "got b'lr'")],
)
def test_claims_that_are_no_set_of_names_are_refused(tmp_path, slot, claims, remedy):
    kind = UniformPathSampler if slot == "paths" else SupernetCallback
    part = type("Part", (kind,), {"claims": claims})()
    settings = {"paths": part} if slot == "paths" else {"callbacks": [part]}
    message = rf"^Attribute `claims` of Part is expected to be a set of names, but {remedy}"
    with pytest.raises(ConfigurationError, match=message) as error:
        train(CASE, settings, tmp_path)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("claims", [{"lr"}, ["lr"], ("lr",), {"lr": 1}])
def test_other_collections_of_names_are_claims(tmp_path, claims):
    parts = [type(name, (SupernetCallback,), {"claims": claims})() for name in ("First", "Second")]
    with pytest.raises(ConfigurationError, match=r"^Decision `lr` is expected to have one owner, .*First, Second"):
        train(CASE, {"callbacks": parts}, tmp_path)


@pytest.mark.parametrize(
    ("returned", "problems"),
    [
        ("It cannot. Use another.", ("It cannot. Use another.",)),
        (["It cannot. Use another.", "Nor so. Stop."], ("It cannot. Use another.", "Nor so. Stop.")),
        (3, ("Method `problems` of Part is expected to return messages, but got 3. Yield one text for each "
             "problem, and nothing where there is none.",)),
    ],
)  # fmt: skip
def test_problems_may_be_one_text(tmp_path, returned, problems):
    class Part(TaskLoss):
        def problems(self, plan):
            return returned

    with pytest.raises(ConfigurationError) as error:
        train(CASE, {"objective": Part()}, tmp_path)
    assert error.value.problems == problems


def test_problems_may_be_none(tmp_path):
    class Part(TaskLoss):
        def problems(self, plan):
            return None

    assert len(train(CASE, {"objective": Part()}, tmp_path, epochs=1).draws) == 4


class Listening(UniformPathSampler):
    """A sampler that waits for hooks which only callbacks get."""

    def on_train_epoch_end(self, trainer, pl_module):
        raise AssertionError

    def on_fit_start(self, trainer, pl_module):
        raise AssertionError


class Loss(Objective):
    """The same of an objective."""

    def on_train_end(self, trainer, pl_module):
        raise AssertionError

    def loss(self, draw, state):
        return state.task_loss()


@pytest.mark.parametrize(
    ("settings", "slot", "got"),
    [
        ({"paths": Listening()}, "paths", "Listening with `on_fit_start`, `on_train_epoch_end`"),
        ({"paths": SandwichSampler(base=Listening())}, "paths", "Listening with"),
        ({"objective": Loss()}, "objective", "Loss with `on_train_end`"),
    ],
)
def test_hooks_of_lightning_in_a_slot_are_refused(tmp_path, settings, slot, got):
    message = rf"^Slot `{slot}` is expected .*, but got {got}.*\. Move what they do to a SupernetCallback"
    with pytest.raises(ConfigurationError, match=message):
        train(CASE, settings, tmp_path)


class Both(UniformPathSampler, pl.Callback):
    """A sampler that is a callback as well."""

    called = 0

    def on_train_epoch_end(self, trainer, pl_module):
        self.called += 1


@pytest.mark.parametrize("where", ["strategy", "trainer"])
def test_a_part_that_is_a_callback_too_gets_its_hooks(tmp_path, where):
    both = Both()
    settings = {"paths": both, "callbacks": [both] if where == "strategy" else []}
    arguments = {"callbacks": [both]} if where == "trainer" else {}
    train(CASE, settings, tmp_path, evaluator_arguments=arguments)
    assert both.called == 2
    with pytest.raises(ConfigurationError, match="got Both with `on_train_epoch_end`"):
        train(CASE, {"paths": Both()}, tmp_path / "alone")


class Returns(Objective):
    def __init__(self, make):
        self.make = make

    def loss(self, draw, state):
        return self.make(state.task_loss())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda loss: None,
            r"`loss` of Returns is expected to return a loss, a tensor of one number, but got None",
        ),
        (lambda loss: 0.5, r"but got 0\.5\. Return a scalar"),
        (lambda loss: loss.expand(3), r"but got a tensor of shape \(3,\)"),
        (lambda loss: loss.detach(), r"but got one without a gradient\. Leave out `detach`"),
    ],
)
def test_losses_that_cannot_be_trained_on(tmp_path, make, said):
    with pytest.raises(ConfigurationError, match=said):
        train(CASE, {"objective": Returns(make)}, tmp_path, epochs=1)


def test_a_step_that_returns_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyModule, "training_step", lambda self, batch, batch_idx: None)
    with pytest.raises(
        ConfigurationError, match=r"`training_step` of the evaluator .* got None\. Return the mean loss"
    ):
        train(CASE, {}, tmp_path, epochs=1)
