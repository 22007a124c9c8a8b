"""What decides a training step beside the optimizer, in a form that two runs can compare."""

from __future__ import annotations

import inspect
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
    for owner in plan.owners():
        for part in with_bases(owner):
            for argument, value in part_arguments(part).items():
                settings[f"{argument} of {type(part).__name__}"] = value
    return settings


def part_arguments(part: Any) -> dict[str, Any]:
    """Return what an object was made with: the arguments that it keeps as attributes of the same names.

    Example:
        >>> from nni_supernet_ext.callbacks import MomentumSeparation
        >>> part_arguments(MomentumSeparation(by='op'))
        {'by': 'op'}
    """
    names = inspect.signature(type(part).__init__).parameters
    return {name: plain_setting(getattr(part, name)) for name in names if hasattr(part, name)}
