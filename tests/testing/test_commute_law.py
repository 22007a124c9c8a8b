"""The law of order sees callbacks whose order decides, and takes those that need a slot of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nni_supernet_ext.core import SupernetCallback
from nni_supernet_ext.testing import CASES, MethodCase, check_commute


class Halve(SupernetCallback):
    def on_before_update(self, state: Any, optimizer: Any) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.grad.mul_(0.5)


class Bound(SupernetCallback):
    def on_before_update(self, state: Any, optimizer: Any) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.grad.clamp_(-0.01, 0.01)


def _case(kind: type[SupernetCallback]) -> MethodCase:
    return MethodCase(kind.__name__, lambda: {"callbacks": [kind()]})


def _shipped(name: str) -> MethodCase:
    return next(case for case in CASES if case.name == name)


def test_callbacks_whose_order_decides_are_seen(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Halve and Bound depend on their order"):
        check_commute([_case(Halve), _case(Bound)], tmp_path)


def test_callbacks_are_trained_in_the_slots_that_they_need(tmp_path: Path) -> None:
    """Without the sandwich that its case brings this regularisation is refused, and nothing would be trained."""
    check_commute([_shipped("LargestSubnetRegularization"), _case(Halve)], tmp_path)
    assert len([folder for folder in tmp_path.iterdir() if any(folder.iterdir())]) == 2
