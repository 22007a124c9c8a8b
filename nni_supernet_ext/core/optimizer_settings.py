"""Notice that a checkpoint was saved under other settings than those that would go on from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer

from nni_supernet_ext._values import is_number, is_truth_value
from nni_supernet_ext.errors import CheckpointError

KEY = "nni_supernet_ext_optimizer"
_HOW_NOT_WHAT = frozenset({"foreach", "fused", "capturable", "differentiable"})
"""Entries of a parameter group that choose an implementation, for example another on another device."""


class SameSettings(pl.Callback):
    """Keep the settings of the optimizer, its schedulers and the step in the checkpoint; refuse one with others.

    A resumed run takes over the checkpoint's learning rate and whatever else its parameter groups and schedulers
    hold, and one that was over already trains no further: another setting would silently have no effect. Values are
    compared as they were configured, not as a scheduler, or a callback that owns them, has left them; so the length
    of the training may change, where no scheduler is configured with it.

    Args:
        step: Settings of the step: name -> plain value.
    """

    def __init__(self, step: Mapping[str, Any]) -> None:
        self._step = dict(step)
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
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        self._now = optimizer_settings(trainer.optimizers[0], schedulers, self._step)
        saved, self._saved = self._saved, None
        difference = None if saved is None else first_difference(saved, self._now)
        if difference is not None:
            raise CheckpointError(
                f"The checkpoint is expected to be of the same configuration, but got another {difference}. Use "
                "the saved settings, or another `checkpoint_dir` to start afresh."
            )

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the settings to the checkpoint."""
        checkpoint[KEY] = self._now


def optimizer_settings(optimizer: Optimizer, schedulers: Iterable[Any], step: Mapping[str, Any]) -> dict[str, Any]:
    """Describe an optimizer that has not stepped yet, in plain containers.

    Args:
        optimizer: The optimizer.
        schedulers: Its learning-rate schedulers, which have not stepped yet either.
        step: Further settings, name -> plain value.

    Returns:
        ``optimizer``, its class; ``groups``, the settings of each parameter group; ``schedulers``, the classes of
        the schedulers; ``of_schedulers``, the settings of each; and the further ones.

    Example:
        >>> import torch
        >>> rate = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
        >>> optimizer_settings(rate, [], {})['groups'][0]['momentum']
        0.9
    """
    names = sorted(set(optimizer.defaults) - _HOW_NOT_WHAT)
    groups = [
        # A scheduler that warms up has changed the rate by now, and left what was configured here.
        {
            name: plain_setting(group.get("initial_lr", group["lr"]) if name == "lr" else group.get(name))
            for name in names
        }
        for group in optimizer.param_groups
    ]
    schedulers = list(schedulers)
    return {
        "optimizer": type(optimizer).__name__,
        "groups": groups,
        "schedulers": [type(scheduler).__name__ for scheduler in schedulers],
        "of_schedulers": [plain_setting(scheduler.state_dict()) for scheduler in schedulers],
        **step,
    }


def plain_setting(value: Any) -> Any:
    """Return a setting as one of Python's own types; None for what cannot be compared, as NaN or a function."""
    if isinstance(value, Tensor):
        return plain_setting(value.tolist())
    if is_truth_value(value):
        return bool(value)
    if is_number(value):
        return None if math.isnan(value) else float(value)
    if isinstance(value, (list, tuple)):
        return [plain_setting(item) for item in value]
    if isinstance(value, Mapping):
        return {name: plain_setting(item) for key, item in value.items() if (name := _key(key)) is not None}
    return str.__str__(value) if isinstance(value, str) else None


def _key(key: Any) -> str | None:
    """Return a mapping's key as text; None for an object whose text is another in every process."""
    plain = plain_setting(key)
    if isinstance(plain, list):
        return str(plain)
    return str(key) if plain is not None or key is None or isinstance(key, type) else None


def first_difference(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return in words the first setting that differs; None where there is none.

    Settings that only one of the two knows, or of which another version of a library has no name, do not count.

    Args:
        saved: Settings of the run that has saved something.
        now: Settings of the run that would go on with it.

    Example:
        >>> first_difference({'gamma': 2.0}, {'gamma': 4.0, 'delta': 1.0})
        '`gamma`: saved with 2.0, resumed with 4.0'
    """
    return next(_differences(saved, now), None)


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name, value in now.items():
        if name not in ("groups", "of_schedulers") and name in saved and saved[name] != value:
            yield _told(f"`{name}`", saved[name], value)
    groups = now.get("groups", [])
    if "groups" in saved and len(saved["groups"]) != len(groups):
        yield _told("number of parameter groups", len(saved["groups"]), len(groups))
    for index, (one, other) in enumerate(zip(saved.get("groups", []), groups, strict=False)):
        where = f" of parameter group {index}" if len(groups) > 1 else ""
        yield from _within(one, other, f"of the optimizer{where}")
    names = now.get("schedulers", [])
    pairs = zip(saved.get("of_schedulers", []), now.get("of_schedulers", []), strict=False)
    for name, (one, other) in zip(names, pairs, strict=False):
        yield from _within(one, other, f"of the scheduler {name}")


def _within(saved: Mapping[str, Any], now: Mapping[str, Any], where: str) -> Iterator[str]:
    for name in now:
        if name in saved and saved[name] != now[name]:
            yield _told(f"`{name}` {where}", saved[name], now[name])


def _told(what: str, then: Any, now: Any) -> str:
    return f"{what}: saved with {then!r}, resumed with {now!r}"
