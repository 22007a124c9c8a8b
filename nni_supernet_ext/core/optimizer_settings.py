"""Notice that a checkpoint's optimizer was configured in another way than the one that would go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer

from nni_supernet_ext._values import is_number, is_truth_value
from nni_supernet_ext.errors import CheckpointError

KEY = "nni_supernet_ext_optimizer"
_HOW_NOT_WHAT = frozenset({"foreach", "fused", "capturable", "differentiable"})
"""Entries of a parameter group that choose an implementation, for example another on another device."""


class SameOptimizer(pl.Callback):
    """Keep the optimizer's settings and the clipping in the checkpoint; refuse one with others.

    A resumed run takes over the checkpoint's learning rate and whatever else its parameter groups hold, so another
    setting would silently have no effect. Values are compared as they were configured, not as a scheduler, or a
    callback that owns them, has left them; so the length of the training may change.

    Args:
        clipping: Clipping of the run: name of the strategy's argument -> value.
    """

    def __init__(self, clipping: Mapping[str, Any]) -> None:
        self._clipping = dict(clipping)
        self._saved: dict[str, Any] | None = None
        self._now: dict[str, Any] = {}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Take what the checkpoint says, before there is an optimizer to compare it with."""
        self._saved = checkpoint.get(KEY)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Compare what has just been configured, before the checkpoint's state takes its place.

        Raises:
            CheckpointError: It is of another optimizer, or of other settings.
        """
        self._now = optimizer_settings(trainer.optimizers[0], self._clipping)
        saved, self._saved = self._saved, None
        if saved is None:
            return
        difference = next(iter(_differences(saved, self._now)), None)
        if difference is not None:
            raise CheckpointError(
                f"The checkpoint is expected to be of the same configuration, but got another {difference}. Use "
                "the saved settings, or another `checkpoint_dir` to start afresh."
            )

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the settings to the checkpoint."""
        checkpoint[KEY] = self._now


def optimizer_settings(optimizer: Optimizer, clipping: Mapping[str, Any]) -> dict[str, Any]:
    """Describe an optimizer that has not stepped yet, in plain containers.

    Args:
        optimizer: The optimizer, with or without schedulers.
        clipping: Further settings, name -> value.

    Returns:
        ``optimizer``, its class; ``groups``, the settings of each parameter group; and the further ones.

    Example:
        >>> import torch
        >>> rate = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
        >>> optimizer_settings(rate, {})['groups'][0]['momentum']
        0.9
    """
    names = sorted(set(optimizer.defaults) - _HOW_NOT_WHAT)
    groups = [
        # A scheduler that warms up has changed the rate by now, and left what was configured here.
        {name: _plain(group.get("initial_lr", group["lr"]) if name == "lr" else group.get(name)) for name in names}
        for group in optimizer.param_groups
    ]
    settings = {name: _plain(value) for name, value in clipping.items()}
    return {"optimizer": type(optimizer).__name__, "groups": groups, **settings}


def _plain(value: Any) -> Any:
    """Return a setting as one of Python's own types; None for what is of a kind that cannot be compared."""
    if isinstance(value, Tensor):
        return value.tolist()
    if is_truth_value(value):
        return bool(value)
    if is_number(value):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str.__str__(value) if isinstance(value, str) else None


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Any:
    """Yield what differs, in words; settings that only one of the two versions of a library knows do not count."""
    for name, value in now.items():
        if name != "groups" and name in saved and saved[name] != value:
            yield _told(f"`{name}`", saved[name], value)
    then, groups = saved["groups"], now["groups"]
    if len(then) != len(groups):
        yield _told("number of parameter groups", len(then), len(groups))
    for index, (one, other) in enumerate(zip(then, groups, strict=False)):
        where = f" of parameter group {index}" if len(groups) > 1 else ""
        for name in other:
            if name in one and one[name] != other[name]:
                yield _told(f"`{name}` of the optimizer{where}", one[name], other[name])


def _told(what: str, then: Any, now: Any) -> str:
    return f"{what}: saved with {then!r}, resumed with {now!r}"
