"""The recipes train what their papers say, in a toy run."""

from __future__ import annotations

import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import nn

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.recipes import dynas, fairnas, few_shot, spos
from nni_supernet_ext.testing import ToyCellSpace, toy_evaluator
from nni_supernet_ext.testing.training import Trace


def run(strategy, root, space=ToyCellSpace, epochs=1):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model_space = RawFormatModelSpace(space(), toy_evaluator(max_epochs=epochs, root=root))
        strategy.initialize(model_space, SequentialExecutionEngine())
    strategy.run()
    return strategy


def test_spos_draws_one_path_and_decays_linearly(tmp_path) -> None:
    trace = Trace()
    run(spos(callbacks=[trace], validate=0), tmp_path)
    assert all(len(step) == 1 for step in trace.draws)
    assert trace.rates == pytest.approx([0.05, 0.0375, 0.025, 0.0125])


class Equal(ModelSpace):
    """Both candidates are equally large."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice([nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)], label="op")
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(torch.relu(self.op(x)).mean((2, 3)))


def test_a_linear_schedule_needs_no_complexities(tmp_path) -> None:
    trace = Trace()
    run(spos(callbacks=[trace], validate=0), tmp_path, Equal)
    assert trace.rates == pytest.approx([0.05, 0.0375, 0.025, 0.0125])


def test_a_linear_schedule_needs_an_end(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match="iterations for the linear schedule, but got none"):
        run(spos(validate=0), tmp_path, epochs=-1)


def test_fairnas_draws_each_candidate_and_decays_along_a_cosine(tmp_path) -> None:
    trace = Trace()
    run(fairnas(callbacks=[trace], validate=0), tmp_path)
    for step in trace.draws:
        assert all(sorted(s[label] for s in step) == ["conv", "point", "skip"] for label in ("edge_0", "edge_1"))
    assert trace.rates == pytest.approx([0.05, 0.0426777, 0.025, 0.0073223], abs=1e-6)


def test_few_shot_trains_a_sub_supernet_for_each_candidate(tmp_path) -> None:
    strategy = run(few_shot("edge_1", validate=0), tmp_path)
    assert strategy.regions == [{"edge_1": ["conv"]}, {"edge_1": ["point"]}, {"edge_1": ["skip"]}]


@pytest.mark.parametrize("baseline", ["spos", "fairnas", "few_shot"])
def test_dynas_runs_on_each_baseline(tmp_path, baseline) -> None:
    trace = Trace()
    strategy = run(dynas(baseline, by="edge_1", callbacks=[trace], validate=0), tmp_path)
    if baseline == "few_shot":
        assert strategy.regions == [{"edge_0": [op]} for op in ("conv", "point", "skip")]
        return
    assert {len(step) for step in trace.draws} == ({3} if baseline == "fairnas" else {1})
    assert all(len({sample["edge_1"] for sample in step}) == 1 for step in trace.draws)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="`baseline` is expected to be 'spos', 'fairnas' or 'few_shot'"):
        dynas("darts")
    with pytest.raises(ConfigurationError, match="`by` is expected to be the label of a choice for 'fairnas'"):
        dynas("fairnas")
    with pytest.raises(ConfigurationError, match="`schedule` is expected"):
        spos(schedule="step")
    with pytest.raises(ConfigurationError, match="`split` is expected to be None for 'spos'"):
        dynas("spos", split="op")
    for levels in (0, -3, True):
        with pytest.raises(ConfigurationError, match="`levels` is expected to be a positive integer"):
            few_shot("op", levels=levels)
