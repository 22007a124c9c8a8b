"""What decides a training step beside the optimizer, in a form that two runs can compare."""

from __future__ import annotations

import inspect
from collections import Counter
from contextlib import suppress
from typing import Any

from nni_supernet_ext.core.declared import with_bases
from nni_supernet_ext.core.optimizer_settings import plain_setting
from nni_supernet_ext.core.plan import Plan


def step_settings(plan: Plan) -> dict[str, Any]:
    """Return the plan's own settings and the arguments of every part that decides something.

    Functions and other objects cannot be compared and are None.

    Args:
        plan: The checked plan, before the training.

    Returns:
        Name in words -> value in plain containers.
    """
    clipping = plan.gradient_clip_val
    settings = {"gradient_clip_val": plain_setting(clipping), "set_to_none": plain_setting(plan.set_to_none)}
    if clipping is not None:
        settings["gradient_clip_algorithm"] = plain_setting(plan.gradient_clip_algorithm)
    counted: Counter[str] = Counter()
    for owner in plan.owners():
        for part in with_bases(owner):
            name = type(part).__name__
            counted[name] += 1
            told = name if counted[name] == 1 else f"{name} {counted[name]}"
            settings |= {f"{argument} of {told}": value for argument, value in part_arguments(part).items()}
    return settings


def part_arguments(part: Any) -> dict[str, Any]:
    """Return what an object was made with: the arguments that it keeps as attributes of the same names.

    Example:
        >>> from nni_supernet_ext.callbacks import MomentumSeparation
        >>> part_arguments(MomentumSeparation(by='op'))
        {'by': 'op'}
    """
    found = {}
    for name in inspect.signature(type(part).__init__).parameters:
        with suppress(Exception):  # a property that can be read only while it trains
            found[name] = plain_setting(getattr(part, name))
    return found
