"""What happens to an optimizer's state where a parameter is split into copies."""

from __future__ import annotations

import copy
from collections.abc import Iterable, MutableMapping
from typing import Any

import torch
from torch import Tensor

from nni_supernet_ext.core.plan import Plan

MODES = ("copied", "zeroed", "shared")
OptimizerState = MutableMapping[Tensor, dict[str, Any]]


def optimizer_state_problems(mode: str, plan: Plan) -> Iterable[str]:
    """Yield what is wrong with a mode in a run."""
    if mode not in MODES:
        yield f"Argument `optimizer_state` is expected to be one of {MODES}, but got {mode!r}. Use 'copied'."
    if mode == "shared" and plan.step_every == "batch" and plan.paths.draws_per_step != 1:
        yield (
            f"Argument `optimizer_state` is expected to be 'copied' or 'zeroed' with several draws in one "
            f"optimizer step, but got 'shared' with {type(plan.paths).__name__}: each copy would advance the one "
            "momentum. Use 'copied', or `step_every='subnet'`."
        )
    if mode == "shared" and not plan.set_to_none:
        yield (
            "Argument `optimizer_state` is expected to be 'copied' or 'zeroed' with `set_to_none=False`, but got "
            "'shared': copies that a step does not use would advance the one momentum too. Use 'copied', or "
            "`set_to_none=True`."
        )


def split_optimizer_state(state: OptimizerState, pairs: Iterable[tuple[Tensor, Tensor]], mode: str) -> None:
    """Give every copy of a parameter its state.

    Args:
        state: Parameter -> its momentum, moments, step count and the like; changed in place.
        pairs: The parameter so far, and what is now a copy of it.
        mode: ``'copied'``: the copy starts with a copy of the state. ``'zeroed'``: both start without.
            ``'shared'``: both use and update the very same state.
    """
    pairs = list(pairs)
    if mode == "zeroed":
        for parameter in {p for pair in pairs for p in pair}:
            state.pop(parameter, None)
        return
    for source, target in pairs:
        if mode == "shared":
            # An optimizer fills an empty state on first use: it must be the same object already.
            state[target] = state.setdefault(source, {})
        elif source in state:
            state[target] = {key: _cloned(value) for key, value in state[source].items()}
        else:
            state.pop(target, None)


def _cloned(value: Any) -> Any:
    return value.detach().clone() if torch.is_tensor(value) else copy.deepcopy(value)
