"""A supernet knows which weight store it was trained with."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from nni_supernet_ext.core import WeightStore
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.strategies import ChoiceSplit, FewShotStrategy, SupernetStrategy
from nni_supernet_ext.testing import ToyCellSpace, toy_evaluator
from nni_supernet_ext.weights import SharedWeights, WeightSplitting
from nni_supernet_ext.weights.trained_with import refuse_shared_weights


class Own(WeightStore):
    """Stand for a store that keeps weights outside of the supernet."""

    def activate(self, supernet: Any, sample: Any) -> None:
        supernet.activate(sample)


def trained(strategy: Any, root: Path, space: Any = None) -> Any:
    space = space if space is not None else ToyCellSpace()
    strategy(RawFormatModelSpace(space, toy_evaluator(1, root=root)), SequentialExecutionEngine())
    return space


def plain(**settings: Any) -> SupernetStrategy:
    return SupernetStrategy(validate=0, recalibrate_batches=0, record=False, **settings)


def test_few_shot_supernet_is_not_searched_with_shared_weights(tmp_path: Path) -> None:
    few_shot = FewShotStrategy(plain(), [ChoiceSplit("edge_0")])
    space = trained(few_shot, tmp_path)
    for model in (space, copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        with pytest.raises(ConfigurationError, match=r"SubSupernetWeights.*got SharedWeights.*`weights=strategy\."):
            refuse_shared_weights(model, SharedWeights())
        refuse_shared_weights(model, few_shot.weights)


def test_an_interrupted_few_shot_training_leaves_its_mark_too(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    few_shot = FewShotStrategy(plain(), [ChoiceSplit("edge_0")])
    count = iter(range(100))

    def train(index: int, *arguments: Any) -> None:
        if next(count):
            raise StopError
        FewShotStrategy._train(few_shot, index, *arguments)

    few_shot._train = train  # type: ignore[method-assign]
    space = ToyCellSpace()
    with pytest.raises(StopError):
        trained(few_shot, tmp_path, space)
    with pytest.raises(ConfigurationError, match="SubSupernetWeights"):
        refuse_shared_weights(space, SharedWeights())


def test_training_anew_decides_anew(tmp_path: Path) -> None:
    space = trained(plain(weights=Own()), tmp_path)
    with pytest.raises(ConfigurationError, match="expected to be the Own that belongs"):
        refuse_shared_weights(space, SharedWeights())
    trained(plain(), tmp_path, space)
    refuse_shared_weights(space, SharedWeights())


def test_stores_that_leave_everything_in_the_supernet_need_no_argument(tmp_path: Path) -> None:
    space = trained(plain(weights=WeightSplitting("sequential", milestones=[0])), tmp_path)
    refuse_shared_weights(space, SharedWeights())


def test_extracted_networks_and_weights_are_as_before(tmp_path: Path) -> None:
    few_shot = FewShotStrategy(plain(), [ChoiceSplit("edge_0")])
    space = trained(few_shot, tmp_path)
    assert not any("weight_store" in name for name in space.state_dict())
    sample = {"edge_0": "conv", "edge_1": "skip"}
    few_shot.weights.activate(few_shot.trained, sample)
    network = few_shot.trained.extract(sample)
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_a_training_that_was_only_prepared_decides_nothing(tmp_path: Path) -> None:
    space = trained(plain(weights=Own()), tmp_path)
    evaluator = toy_evaluator(1, root=tmp_path)
    plain().initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    with pytest.raises(ConfigurationError, match="Own"):
        refuse_shared_weights(space, SharedWeights())
