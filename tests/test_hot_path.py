"""No training step and no evaluated batch waits for the device: on a GPU the host must stay ahead of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nni.nas.evaluator.pytorch import DataLoader

from nni_supernet_ext.core import SubnetEvaluator
from nni_supernet_ext.testing import CASES, check_hot_path, device_reads, toy_data, toy_evaluator, toy_supernet


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_steps_read_nothing_from_the_device(case, tmp_path: Path) -> None:
    check_hot_path(case, tmp_path)


def test_evaluation_reads_nothing_from_the_device_before_its_end() -> None:
    data, supernet = toy_data(), toy_supernet()

    def evaluation(batch_size: int) -> Callable[[], object]:
        module = toy_evaluator().module
        evaluator = SubnetEvaluator(supernet, module, DataLoader(data, batch_size=batch_size))
        return lambda: evaluator.evaluate({"op": "conv", "width": 4})

    assert device_reads(evaluation(2)) == device_reads(evaluation(len(data)))
