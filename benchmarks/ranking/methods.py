"""The methods compared: name -> function that returns the arguments of `SupernetStrategy`.

A further method is one more function here. Where none of its callbacks owns the learning rate, the rate falls
along half a cosine. `BASELINES` predict without any training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.data import ImportanceDataSampler
from nni_supernet_ext.paths import ImportancePathSampler
from nni_supernet_ext.spaces import nasbench201_flops, nasbench201_params


def spos() -> dict[str, Any]:
    """Single-path one-shot: one uniform path per batch, nothing else."""
    return {}


def calr() -> dict[str, Any]:
    """SPOS with the complexity-aware learning rate, published setting for NAS-Bench-201."""
    return {"callbacks": [ComplexityAwareLR("weights", gamma_max=4.0)]}


def ms() -> dict[str, Any]:
    """SPOS with momentum separated by the operation on one edge, chosen by the run's seed."""
    return {"callbacks": [MomentumSeparation()]}


def calr_ms() -> dict[str, Any]:
    """Dynamic supernet training: both of the above."""
    return {"callbacks": [*calr()["callbacks"], *ms()["callbacks"]]}


def pa() -> dict[str, Any]:
    """SPOS with paths drawn by importance."""
    return {"paths": ImportancePathSampler()}


def da() -> dict[str, Any]:
    """SPOS with training images drawn by importance."""
    return {"data": ImportanceDataSampler()}


def panda() -> dict[str, Any]:
    """PA&DA: both of the above."""
    return {**pa(), **da()}


def panda_calr_ms() -> dict[str, Any]:
    """PA&DA together with dynamic supernet training."""
    return {**panda(), **calr_ms()}


METHODS: dict[str, Callable[[], dict[str, Any]]] = {
    "spos": spos,
    "calr": calr,
    "ms": ms,
    "calr_ms": calr_ms,
    "pa": pa,
    "da": da,
    "panda": panda,
    "panda_calr_ms": panda_calr_ms,
}

BASELINES: dict[str, Callable[[Mapping[str, str]], float]] = {
    "params": nasbench201_params,
    "flops": nasbench201_flops,
}


def owns_learning_rate(arguments: Mapping[str, Any]) -> bool:
    """Tell whether one of the method's callbacks owns the learning rate."""
    return any("lr" in getattr(callback, "claims", ()) for callback in arguments.get("callbacks", ()))
