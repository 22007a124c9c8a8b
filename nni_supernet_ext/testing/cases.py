"""The shipped methods, described to the laws."""

from __future__ import annotations

from typing import Any

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.objectives import TaskLoss
from nni_supernet_ext.paths import UniformPathSampler
from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.weights import SharedWeights

_BATCHES = 4


def linear_decay(step: int, epochs: int = 2) -> float:
    """Return the factor of linear decay to zero over the toy training."""
    total = _BATCHES * epochs
    return (total - step) / total


def _one_cluster(sample: Any) -> int:
    return 0


def _uniform() -> dict[str, Any]:
    return {"paths": UniformPathSampler()}


def _shared() -> dict[str, Any]:
    return {"weights": SharedWeights()}


def _task() -> dict[str, Any]:
    return {"objective": TaskLoss()}


def _calr() -> dict[str, Any]:
    return {"callbacks": [ComplexityAwareLR(gamma_max=4.0)]}


def _calr_neutral() -> dict[str, Any]:
    return {"callbacks": [ComplexityAwareLR(gamma_max=1.0)]}


def _ms() -> dict[str, Any]:
    return {"callbacks": [MomentumSeparation(by="op")]}


def _ms_neutral() -> dict[str, Any]:
    return {"callbacks": [MomentumSeparation(by=_one_cluster)]}


CASES: list[MethodCase] = [
    MethodCase("UniformPathSampler", _uniform, _uniform),
    MethodCase("SharedWeights", _shared, _shared),
    MethodCase("TaskLoss", _task, _task),
    MethodCase("ComplexityAwareLR", _calr, _calr_neutral, reference_evaluator={"schedule": linear_decay}),
    MethodCase("MomentumSeparation", _ms, _ms_neutral),
]
"""One case per public method; the law of the surface fails for a method without one."""
