"""No training step and no evaluated batch waits for the device: on a GPU the host must stay ahead of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nni.nas.evaluator.pytorch import DataLoader
from torch.profiler import ProfilerActivity, profile

from nni_supernet_ext.core import SubnetEvaluator
from nni_supernet_ext.core.guard import NonFiniteGuard
from nni_supernet_ext.testing import CASES, toy_data, toy_evaluator, toy_supernet, train

READS = {"aten::item", "aten::is_nonzero", "aten::nonzero", "aten::masked_select", "aten::_unique2"}
READS_BY_DESIGN = {"AttentivePathSampler": "the next subnet is chosen by the losses of candidates"}


def reads(work: Callable[[], object]) -> int:
    """Count what reads values from a device, or makes shapes of them, in this process."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    return sum(event.name in READS for event in profiled.events())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_steps_read_nothing_from_the_device(case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a CPU, where that costs nothing, every loss is looked at in its own step; elsewhere they are gathered.
    monkeypatch.setattr(NonFiniteGuard, "watch", lambda *arguments: None)

    def training(batches: int) -> Callable[[], object]:
        arguments = {"limit_train_batches": batches}
        return lambda: train(case, case.settings(), tmp_path / str(batches), evaluator_arguments=arguments)

    added = reads(training(4)) - reads(training(2))
    more_steps = 2 * (4 - 2)
    # Fewer than one a step: epochs that see more subnets may report more.
    assert (added >= more_steps) == (case.name in READS_BY_DESIGN)


def test_evaluation_reads_nothing_from_the_device_before_its_end() -> None:
    data, supernet = toy_data(), toy_supernet()

    def evaluation(batch_size: int) -> Callable[[], object]:
        module = toy_evaluator().module
        evaluator = SubnetEvaluator(supernet, module, DataLoader(data, batch_size=batch_size))
        return lambda: evaluator.evaluate({"op": "conv", "width": 4})

    assert reads(evaluation(2)) == reads(evaluation(len(data)))
