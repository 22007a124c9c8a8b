"""Mend defects of NNI 3.0 itself, narrowly: one function per defect, each only where it is still there."""

from __future__ import annotations

import contextlib
import functools
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nni_supernet_ext.errors import SpaceError

__all__ = ["apply_nni_fixes", "clean_profiling", "plain_sample"]


@functools.cache
def apply_nni_fixes() -> None:
    """Apply every fix of this file to NNI; imports NNI, and does nothing when called again.

    Example:
        >>> apply_nni_fixes()
    """
    fix_freeze_without_bias()
    fix_loading_of_experiment_state()
    fix_experiment_log_left_open()


def fix_freeze_without_bias() -> bool:
    """Let supernet layers without bias be frozen.

    NNI's ``MixedOperation.freeze`` hands ``bias=None`` to ``load_state_dict``, which refuses the key: no
    ``MutableConv2d`` or ``MutableLinear`` with ``bias=False`` can be frozen.

    Returns:
        Whether the defect was there and was fixed.
    """
    from nni.mutable import Categorical
    from nni.nas.oneshot.pytorch.supermodule.operation import MixedLinear, MixedOperation

    def freeze(self: Any, sample: dict[str, Any]) -> Any:
        chosen = {name: mutable.freeze(sample) for name, mutable in self.mutable_arguments.items()}
        arguments = {**self.init_arguments, **chosen}
        operation = self.bound_type(**arguments)
        weights = self.freeze_weight(**arguments)
        operation.load_state_dict({name: weight for name, weight in weights.items() if weight is not None})
        return operation

    width = Categorical([1, 2], label="probe")
    probe = MixedLinear({"in_features": 1, "out_features": width, "bias": False})
    with contextlib.suppress(RuntimeError):
        probe.freeze({"probe": 1})
        return False
    MixedOperation.freeze = freeze
    return True


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


@contextlib.contextmanager
def clean_profiling(model: nn.Module) -> Iterator[None]:
    """Take off the hooks that NNI's profiler leaves on a model when profiling fails.

    Every later forward pass would die with "'Tensor' object has no attribute 'real_shape'". Hooks that were
    there before stay.

    Args:
        model: The model that is profiled inside the block.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> with clean_profiling(model):
        ...     _ = model.register_forward_hook(lambda *_: None)
        >>> len(model._forward_hooks)
        0
    """
    from nni.nas.profiler.pytorch.utils import shape

    tables = [hooks for m in model.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks)]
    before = [set(hooks) for hooks in tables]
    names = list(shape._current_module_names)
    try:
        yield
    finally:
        for hooks, known in zip(tables, before, strict=True):
            for key in set(hooks) - known:
                del hooks[key]
        shape._current_module_names[:] = names


def plain_sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a sample's labels and values into plain builtins.

    NNI's labels are a subclass of ``str``, which ``torch.load(weights_only=True)`` refuses.

    Args:
        sample: Label -> chosen value.

    Returns:
        An equal dictionary of exactly ``str``, ``int``, ``float``, ``bool``, ``None``, ``list``, ``tuple``
        and ``dict``.

    Raises:
        SpaceError: A value is of another kind.

    Example:
        >>> plain_sample({"width": np.int64(8), "inputs": [0, 2]})
        {'width': 8, 'inputs': [0, 2]}
    """
    return {str.__str__(label): _plain_value(label, value) for label, value in sample.items()}


# A bool is an int, so it comes first.
_SCALARS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (bool, bool),
    (int, int),
    (float, float),
    (str, str.__str__),
)


def _plain_value(label: str, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    for kind, convert in _SCALARS:
        if isinstance(value, kind):
            return convert(value)
    if isinstance(value, (list, tuple)):
        items = [_plain_value(label, item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, Mapping):
        return {_plain_value(label, key): _plain_value(label, item) for key, item in value.items()}
    raise SpaceError(
        f"Argument `sample` is expected to hold numbers, strings and lists of them, but got "
        f"{type(value).__name__} at label {str(label)!r}. Give the choice string candidates instead."
    )
