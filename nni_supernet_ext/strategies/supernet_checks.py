"""Which arguments of a supernet's training are of the wrong kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl

from nni_supernet_ext._integers import integer_problems
from nni_supernet_ext._values import number_problems, path_problems, truth_value_problems
from nni_supernet_ext.core.component import Component
from nni_supernet_ext.core.slots import DataSampler, Objective, PathSampler, WeightStore


def listed(callbacks: Any) -> Any:
    """Return callbacks as a list; what holds none, such as a single one, as it is, for the check to refuse."""
    return list(callbacks) if isinstance(callbacks, Iterable) and not isinstance(callbacks, str) else callbacks


def argument_problems(strategy: Any) -> list[str]:
    """Return a message for each argument of the wrong kind.

    Args:
        strategy: A `SupernetStrategy` with its arguments as attributes.

    Returns:
        The messages, none where all is well.
    """
    slots: dict[str, tuple[Any, type]] = {
        "paths": (strategy.paths, PathSampler),
        "weights": (strategy.weights, WeightStore),
        "objective": (strategy.objective, Objective),
    }
    if strategy.data is not None:
        slots["data"] = (strategy.data, DataSampler)
    problems = [
        f"Argument `{name}` is expected to be a {kind.__name__}, but got {type(value).__name__}. Pass an "
        f"instance that derives from nni_supernet_ext.core.{kind.__name__}."
        for name, (value, kind) in slots.items()
        if not isinstance(value, kind)
    ]
    problems += _callback_problems(strategy.callbacks)
    for name in ("validate", "recalibrate_batches"):
        value = getattr(strategy, name)
        if not isinstance(value, Mapping):
            problems += integer_problems("Use 0 for none.", least=0, **{name: value})
    problems += integer_problems("Use 0.", least=0, seed=strategy.seed)
    clipping = "Use 1.0, or None to switch clipping off."
    problems += number_problems(clipping, optional=True, gradient_clip_val=strategy.gradient_clip_val)
    problems += path_problems("Name a folder.", checkpoint_dir=strategy.checkpoint_dir)
    problems += truth_value_problems("Use True, the default.", set_to_none=strategy.set_to_none)
    problems += truth_value_problems("Use True, the default.", record=strategy.record)
    return problems


def _callback_problems(callbacks: Any) -> list[str]:
    if not isinstance(callbacks, list):
        name = type(callbacks).__name__
        return [f"Argument `callbacks` is expected to be a list, but got {name}. Put it into one: callbacks=[...]."]
    return [
        f"Argument `callbacks` is expected to hold Lightning callbacks, but got {type(c).__name__}. "
        + ("Pass it to its slot instead." if isinstance(c, Component) else "Derive it from Callback.")
        for c in callbacks
        if not isinstance(c, pl.Callback)
    ]
