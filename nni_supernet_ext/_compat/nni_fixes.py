"""Mend defects of NNI 3.0 itself, narrowly: one function per defect, each only where it is still there."""

from __future__ import annotations

import contextlib
import functools
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch

from nni_supernet_ext._compat.nni_layers import (
    fix_batch_norm_without_momentum,
    fix_batch_norm_without_weights,
    fix_dropout_of_mutable_attention,
    fix_freeze_of_mutable_layers,
    fix_padding_of_mutable_kernels,
    fix_slicing_of_layer_norm,
)

__all__ = ["apply_nni_fixes"]


@functools.cache
def apply_nni_fixes() -> None:
    """Apply every fix of this file, and those of mutable layers, to NNI.

    Imports NNI, and does nothing when called again.

    Example:
        >>> apply_nni_fixes()
    """
    # The probes draw initial weights; the caller's random state is not ours to use.
    with torch.random.fork_rng(devices=[]):
        fix_freeze_of_mutable_layers()
        fix_batch_norm_without_momentum()
        fix_batch_norm_without_weights()
        fix_dropout_of_mutable_attention()
        fix_padding_of_mutable_kernels()
        fix_slicing_of_layer_norm()
        fix_loading_of_experiment_state()
        fix_experiment_log_left_open()


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
