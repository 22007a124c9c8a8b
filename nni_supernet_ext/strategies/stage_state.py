"""What one training hands to the next: weights, optimizer, separated momenta."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
from torch import Tensor


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes:
        weights: Parameters and buffers.
        optimizer: The optimizer's state by parameter index, or None for a fresh optimizer.
        momentum: State of the component that owns the momentum, if any, by class name.
        origin: Where it comes from, in words: a resumed run must start from the same.
    """

    weights: Mapping[str, Tensor]
    optimizer: Mapping[int, Any] | None = None
    momentum: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "initial weights"


class KeepState(pl.Callback):
    """Copy the optimizer's state and the separated momenta at the end of a training.

    Attributes:
        optimizer: The optimizer's state by parameter index.
        momentum: State of the owner of the momentum, by class name.
    """

    def __init__(self) -> None:
        self.optimizer: dict[int, Any] = {}
        self.momentum: dict[str, Any] = {}
        self._kept = False

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Copy before the owner of the momentum frees it."""
        self._keep(trainer, pl_module, lambda part: part.checkpoint_state())

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Copy what the checkpoint says where the training was over already, so that none ended now."""
        if not self._kept:
            self._keep(trainer, pl_module, pl_module.restored_state)

    def _keep(self, trainer: Any, pl_module: Any, state_of: Callable[[Any], Any]) -> None:
        self._kept = True
        self.optimizer = copy.deepcopy(trainer.optimizers[0].state_dict()["state"])
        self.momentum = {type(part).__name__: copy.deepcopy(state_of(part)) for part in _momentum_owners(pl_module)}


class TakeState(pl.Callback):
    """Give a fresh training the optimizer state of another; a resumed one has its own.

    Args:
        start: What to take over.
    """

    def __init__(self, start: Start) -> None:
        self._start = start
        self._done = False

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Load once, before the first batch, when optimizer and components are ready."""
        if self._done:
            return
        self._done = True
        if trainer.global_step or self._start.optimizer is None:
            return
        optimizer = trainer.optimizers[0]
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": copy.deepcopy(dict(self._start.optimizer)), "param_groups": groups})
        for part in _momentum_owners(pl_module):
            if type(part).__name__ in self._start.momentum:
                part.restore_state(copy.deepcopy(self._start.momentum[type(part).__name__]))


def _momentum_owners(module: Any) -> list[Any]:
    return [part for part in module.plan.components() if "momentum" in getattr(part, "claims", ())]
