"""What the strategy refuses before training starts, each with its remedy."""

from __future__ import annotations

import pytest
import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.evaluator.pytorch import Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.callbacks import StochasticWeightAveraging
from torch import nn

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.core import Supernet
from nni_supernet_ext.errors import ConfigurationError, SpaceError
from nni_supernet_ext.objectives import TaskLoss
from nni_supernet_ext.strategies import ChoiceSplit, FewShotStrategy, SupernetStrategy
from nni_supernet_ext.testing import MethodCase, ToySpace, toy_evaluator
from nni_supernet_ext.testing.training import train


def _start(space, evaluator, **settings):
    strategy = SupernetStrategy(**settings)
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())


class Empty(ModelSpace):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(192, 10)

    def forward(self, x):
        return self.head(x.flatten(1))


def test_space_without_choices(tmp_path):
    with pytest.raises(SpaceError, match=r"at least one choice, but got Empty with none\. Use LayerChoice"):
        _start(Empty(), toy_evaluator(root=tmp_path))


@pytest.mark.parametrize("name", ["train_dataloaders", "val_dataloaders"])
def test_evaluator_without_a_loader(tmp_path, name):
    evaluator = toy_evaluator(root=tmp_path)
    setattr(evaluator, name, None)
    message = f"`{name}` of the evaluator is expected to be a loader, but got None"
    with pytest.raises(ConfigurationError, match=message):
        _start(ToySpace(), evaluator)


def test_evaluator_of_another_kind():
    with pytest.raises(ConfigurationError, match=r"NNI Lightning evaluator, but got FunctionalEvaluator\. Use"):
        _start(ToySpace(), FunctionalEvaluator(lambda model: 0.0))


def test_trainer_without_a_log(tmp_path):
    evaluator = toy_evaluator(root=tmp_path, barebones=True)
    with pytest.raises(ConfigurationError, match="`barebones` of the trainer is expected to be False"):
        _start(ToySpace(), evaluator)


@pytest.mark.parametrize("of_the_trainer", [True, False])
def test_averaging_that_trains_on(tmp_path, of_the_trainer):
    averaging = [StochasticWeightAveraging(0.01)]
    evaluator = toy_evaluator(root=tmp_path, callbacks=averaging if of_the_trainer else [])
    with pytest.raises(ConfigurationError, match=r"but got StochasticWeightAveraging.*EMAWeightAveraging"):
        _start(ToySpace(), evaluator, callbacks=[] if of_the_trainer else averaging)


def test_module_with_manual_optimization(tmp_path):
    evaluator = toy_evaluator(root=tmp_path)
    evaluator.module.automatic_optimization = False
    with pytest.raises(ConfigurationError, match="automatic optimization, but got manual"):
        _start(ToySpace(), evaluator)


def test_all_problems_are_raised_at_once(tmp_path):
    settings = {
        "step_every": "epoch",
        "gradient_clip_val": -1.0,
        "gradient_clip_algorithm": "l2",
        "callbacks": [ComplexityAwareLR(gamma_max=0.0), ComplexityAwareLR(), MomentumSeparation(by="nope")],
    }
    with pytest.raises(ConfigurationError) as error:
        train(MethodCase("a", dict), settings, tmp_path)
    text = "\n".join(error.value.problems)
    assert len(error.value.problems) == 6
    for name in ("step_every", "gradient_clip_val", "gradient_clip_algorithm", "gamma_max", "`lr`", "`by`"):
        assert name in text


def test_trainer_clipping_is_refused_by_name(tmp_path):
    evaluator = toy_evaluator(root=tmp_path, gradient_clip_val=1.0)
    with pytest.raises(ConfigurationError, match="`gradient_clip_val` of SupernetStrategy"):
        _start(ToySpace(), evaluator)


def test_accumulated_batches_are_refused_by_name(tmp_path):
    evaluator = toy_evaluator(root=tmp_path, accumulate_grad_batches=2)
    with pytest.raises(ConfigurationError, match="`accumulate_grad_batches`"):
        _start(ToySpace(), evaluator)


def test_ddp_that_expects_every_parameter_is_refused(tmp_path):
    evaluator = toy_evaluator(root=tmp_path, strategy="ddp", devices=2)
    with pytest.raises(ConfigurationError, match="ddp_find_unused_parameters_true"):
        _start(ToySpace(), evaluator)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"paths": TaskLoss()}, "`paths` is expected to be a PathSampler, but got TaskLoss"),
        ({"objective": "loss"}, "`objective` is expected to be a Objective, but got str"),
        ({"callbacks": [TaskLoss()]}, "`callbacks` is expected to hold Lightning callbacks.*TaskLoss.*slot"),
        ({"seed": -1}, "`seed` is expected to be an integer of at least 0, but got -1"),
        ({"seed": 1.5}, "`seed` is expected to be an integer of at least 0, but got 1.5"),
        ({"validate": -1}, "`validate`"),
        ({"recalibrate_batches": -1}, "`recalibrate_batches`"),
    ],
)
def test_wrong_arguments(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        SupernetStrategy(**settings)


def test_unmutated_space_is_no_supernet():
    with pytest.raises(SpaceError, match=r"but got ToySpace without any supernet module\. Train it with"):
        Supernet(ToySpace())


def test_nothing_is_lost_on_a_refusal(tmp_path):
    """The same space and evaluator train after the mistake is corrected."""
    space, evaluator = ToySpace(), toy_evaluator(1, root=tmp_path)
    before = [p.clone() for p in space.parameters()]
    with pytest.raises(ConfigurationError, match="`by`"):
        _start(space, evaluator, callbacks=[MomentumSeparation(by="nope")])
    assert isinstance(evaluator, Lightning)
    assert len(before) == len(list(space.parameters()))
    _start(space, evaluator, callbacks=[MomentumSeparation(by="op")])
    assert evaluator.trainer.current_epoch == 1


def test_wrong_trainer_is_nnis_own_error():
    assert isinstance(toy_evaluator().trainer, torch.nn.Module) is False
    assert isinstance(toy_evaluator().trainer, Trainer.__mro__[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient_clip_val": "1.0"}, "`gradient_clip_val` is expected to be a number or None, but got '1.0'"),
        ({"gradient_clip_val": True}, "`gradient_clip_val` is expected to be a number or None, but got True"),
        (
            {"callbacks": ComplexityAwareLR()},
            r"`callbacks` is expected to be a list, but got ComplexityAwareLR\. Put it into one: callbacks=\[",
        ),
        ({"callbacks": "calr"}, "`callbacks` is expected to be a list, but got str"),
        ({"checkpoint_dir": 3}, "`checkpoint_dir` is expected to be a path or None, but got 3"),
        ({"record": "no"}, "`record` is expected to be True or False, but got 'no'"),
        ({"set_to_none": "no"}, "`set_to_none` is expected to be True or False, but got 'no'"),
    ],
)
def test_arguments_of_a_wrong_kind(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        SupernetStrategy(**settings)


def test_callbacks_may_be_any_collection_of_them():
    first, second = ComplexityAwareLR(), MomentumSeparation(by="op")
    assert SupernetStrategy(callbacks=(first, second)).callbacks == [first, second]
    assert SupernetStrategy(callbacks=(c for c in [first])).callbacks == [first]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splits": ChoiceSplit("op")}, r"`splits` is expected to hold .*Use for example \[ChoiceSplit"),
        ({"only": 1}, r"`only` is expected to hold numbers of sub-supernets, but got 1\. Put it into a list"),
    ],
)
def test_few_shot_arguments_that_are_no_lists(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        FewShotStrategy(**settings)


def test_evaluator_that_has_trained_trains_no_second_supernet(tmp_path):
    evaluator = toy_evaluator(1, root=tmp_path)
    _start(ToySpace(), evaluator)
    with pytest.raises(ConfigurationError, match=r"expected to be fresh.*already trained.*Make a new evaluator"):
        _start(ToySpace(), evaluator)


def test_evaluator_that_has_trained_goes_on_where_a_checkpoint_says_where(tmp_path):
    space, evaluator = ToySpace(), toy_evaluator(1, root=tmp_path)
    strategy = SupernetStrategy(checkpoint_dir=tmp_path / "c")
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    before = {name: value.clone() for name, value in space.state_dict().items()}
    evaluator.trainer.fit_loop.max_epochs = 2
    again = SupernetStrategy(checkpoint_dir=tmp_path / "c")
    again(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    assert again.module.state.iteration == 8
    assert any(not torch.equal(value, space.state_dict()[name]) for name, value in before.items())


def test_evaluator_that_has_trained_is_good_for_the_parts_of_few_shot_training(tmp_path):
    evaluator = toy_evaluator(1, root=tmp_path)
    _start(ToySpace(), evaluator)
    few_shot = FewShotStrategy(SupernetStrategy(validate=0, recalibrate_batches=0), [ChoiceSplit("op")])
    few_shot(RawFormatModelSpace(ToySpace(), evaluator), SequentialExecutionEngine())
    first, second = (part.weights["stem.weight"] for part in few_shot.weights.parts[:2])
    assert not torch.equal(first, second)
