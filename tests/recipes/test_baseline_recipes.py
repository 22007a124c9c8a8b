"""The recipes train what their papers say, in a toy run."""

from __future__ import annotations

import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.recipes import dynas, fairnas, few_shot, spos
from nni_supernet_ext.testing import ToyCellSpace, toy_evaluator
from nni_supernet_ext.testing.training import Trace


def run(strategy, root):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model_space = RawFormatModelSpace(ToyCellSpace(), toy_evaluator(max_epochs=1, root=root))
        strategy.initialize(model_space, SequentialExecutionEngine())
    strategy.run()
    return strategy


def test_spos_draws_one_path_and_decays_linearly(tmp_path) -> None:
    trace = Trace()
    run(spos(callbacks=[trace], validate=0), tmp_path)
    assert all(len(step) == 1 for step in trace.draws)
    assert trace.rates == pytest.approx([0.05, 0.0375, 0.025, 0.0125])


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
