"""A sandwich inside few-shot training: both ends are those of each sub-supernet."""

from __future__ import annotations

import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from nni_supernet_ext.objectives import InplaceDistillation
from nni_supernet_ext.paths import SandwichSampler
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.strategies.few_shot import FewShotStrategy
from nni_supernet_ext.strategies.splits import ChoiceSplit
from nni_supernet_ext.testing import ToySpace, toy_evaluator
from nni_supernet_ext.testing.training import Trace


def test_the_ends_are_the_part_s_own(tmp_path):
    trace = Trace()
    base = SupernetStrategy(
        paths=SandwichSampler(n_random=1),
        objective=InplaceDistillation("adaptive_alpha"),
        callbacks=[trace],
        validate=0,
        recalibrate_batches=0,
        checkpoint_dir=tmp_path / "parts",
    )
    strategy = FewShotStrategy(base, [ChoiceSplit("op")])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        space = RawFormatModelSpace(ToySpace(), toy_evaluator(1, root=tmp_path))
        strategy.initialize(space, SequentialExecutionEngine())
    strategy.run()
    assert [set(region["op"]) for region in strategy.regions] == [{"conv"}, {"linear"}, {"skip"}]
    for number, op in enumerate(("conv", "linear", "skip")):
        draws = strategy.part_callbacks[number][0].draws
        assert {step[0]["op"] for step in draws} == {op}
        assert [(step[0]["width"], step[-1]["width"]) for step in draws] == [(8, 4)] * 4
