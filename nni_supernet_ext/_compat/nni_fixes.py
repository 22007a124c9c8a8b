"""Mend defects of NNI 3.0 itself, narrowly: one function per defect, each only where it is still there."""

from __future__ import annotations

import contextlib
import functools
import pickle
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

__all__ = ["apply_nni_fixes"]


@functools.cache
def apply_nni_fixes() -> None:
    """Apply every fix of this file to NNI; imports NNI, and does nothing when called again.

    Example:
        >>> apply_nni_fixes()
    """
    # The probes draw initial weights; the caller's random state is not ours to use.
    with torch.random.fork_rng(devices=[]):
        fix_freeze_without_bias()
        fix_slicing_of_layer_norm()
        fix_loading_of_experiment_state()
        fix_experiment_log_left_open()


def fix_freeze_without_bias() -> bool:
    """Let supernet layers without bias be frozen.

    NNI's ``MixedOperation.freeze`` hands ``bias=None`` to ``load_state_dict``, which refuses the key: no
    ``MutableConv2d`` or ``MutableLinear`` with ``bias=False`` can be frozen.

    Returns:
        Whether the defect was there and was fixed.
    """
    from nni.mutable import Categorical, frozen_context
    from nni.nas.oneshot.pytorch.supermodule.operation import MixedLinear, MixedOperation

    def freeze(self: Any, sample: dict[str, Any]) -> Any:
        chosen = {name: mutable.freeze(sample) for name, mutable in self.mutable_arguments.items()}
        arguments = {**self.init_arguments, **chosen}
        operation = self.bound_type(**arguments)
        weights = self.freeze_weight(**arguments)
        operation.load_state_dict({name: weight for name, weight in weights.items() if weight is not None})
        return operation

    width = Categorical([1, 2], label="probe")
    with frozen_context():  # as a strategy makes them; outside, NNI warns of a module without a space
        probe = MixedLinear({"in_features": 1, "out_features": width, "bias": False})
    with contextlib.suppress(RuntimeError):
        probe.freeze({"probe": 1})
        return False
    MixedOperation.freeze = freeze
    return True


def fix_slicing_of_layer_norm() -> bool:
    """Let a layer norm of mutable width be sliced without a warning.

    NNI's ``MixedLayerNorm`` indexes its weights with a list of slices, which torch deprecated and announced
    to read as a tensor index; a tuple means what NNI means.

    Returns:
        Whether the defect was there and was fixed.
    """
    from nni.nas.oneshot.pytorch.supermodule.operation import MixedLayerNorm

    def slice_weights(self: Any, normalized_shape: Any, **_kwargs: Any) -> dict[str, Any]:
        if isinstance(normalized_shape, dict):  # Weighted shapes, of differentiable strategies.
            normalized_shape = self.normalized_shape
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        prefix = tuple(slice(min(size)) for size in zip(shape, self.normalized_shape, strict=False))
        weights = {name: getattr(self, name) for name in ("weight", "bias")}
        sliced = {name: weight if weight is None else weight[prefix] for name, weight in weights.items()}
        return {**sliced, "normalized_shape": shape}

    probe = SimpleNamespace(normalized_shape=(2,), weight=_IndexType(), bias=None)
    if MixedLayerNorm._freeze_weight_impl(probe, 1)["weight"] is not list:
        return False
    MixedLayerNorm._freeze_weight_impl = slice_weights
    return True


class _IndexType:
    """Stand for a weight and tell the type it is indexed with."""

    def __getitem__(self, index: Any) -> type:
        return type(index)


def fix_loading_of_experiment_state() -> bool:
    """Let ``NasExperiment.resume`` read the state that the same experiment wrote.

    NNI's ``TorchSerializer`` saves Python objects and loads them with torch's default, which since torch 2.6
    accepts tensors and builtins only: resuming any multi-trial strategy fails. NNI meant what the default was
    before; the file is the user's own.

    Returns:
        Whether the defect was there and was fixed.
    """
    from nni.nas.utils import serializer

    def load(self: Any, path: Path) -> Any:
        found = serializer._find_path_with_prefix(path, self.suffix)
        return torch.load(found, map_location=self._map_location, weights_only=False)

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(pickle.UnpicklingError):
        probe = serializer.TorchSerializer()
        probe.save(Path("not a builtin"), Path(folder, "probe"))
        probe.load(Path(folder, "probe"))
        return False
    serializer.TorchSerializer.load = load
    return True


def fix_experiment_log_left_open() -> bool:
    """Close an experiment's log file when the experiment stops.

    NNI only takes the handler off, so every experiment keeps a file open and Python warns about it.

    Returns:
        Whether the defect was there and was fixed.
    """
    from nni.experiment import experiment
    from nni.runtime import log

    stop_only = log.stop_experiment_logging

    def stop_and_close(experiment_id: str) -> None:
        handler = log._handlers.get(experiment_id)
        stop_only(experiment_id)
        if handler is not None:
            handler.close()

    with tempfile.TemporaryDirectory() as folder:
        log.start_experiment_logging("probe", Path(folder, "probe.log"), "info")
        handler = log._handlers["probe"]
        stop_only("probe")
        if handler.stream is None:
            return False
        handler.close()
    log.stop_experiment_logging = experiment.stop_experiment_logging = stop_and_close
    return True
