"""Changes to a protocol, given as text, checked before anything runs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from grounds import GROUNDS
from protocols import Protocol

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.spaces import NASBENCH201_OPERATIONS


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a setting is expected to be, in words and as a test."""

    expected: str
    holds: Callable[[Any], bool]


def _one_of(*values: str) -> Rule:
    return Rule(f"one of {', '.join(values)}", lambda value: value in values)


def _integer(least: int) -> Rule:
    return Rule(f"an integer of at least {least}", lambda value: type(value) is int and value >= least)


def _number(expected: str, within: Callable[[float], bool]) -> Rule:
    return Rule(expected, lambda value: type(value) in (int, float) and math.isfinite(value) and within(value))


def _is_operations(value: Any) -> bool:
    if value is None:
        return True
    known = isinstance(value, list) and all(name in NASBENCH201_OPERATIONS for name in value)
    return known and len(set(value)) == len(value) >= 2


_SWITCH = Rule("true or false", lambda value: type(value) is bool)
_NOT_NEGATIVE = _number("a number of at least 0", lambda value: value >= 0)
_COUNTS = (
    "channels", "cells", "train_images", "batch_size", "epochs", "evaluation_images", "evaluation_batch",
    "recalibration_batches",
)  # fmt: skip
_SWITCHES = ("drop_last", "set_to_none", "augment", "whole_train_set", "channels_last")
RULES: dict[str, Rule] = {
    **dict.fromkeys(_COUNTS, _integer(1)),
    **dict.fromkeys(_SWITCHES, _SWITCH),
    "benchmark": _one_of(*GROUNDS),
    "image_size": _integer(0),
    "learning_rate": _number("a number above 0", lambda value: value > 0),
    "momentum": _number("a number from 0 to below 1", lambda value: 0 <= value < 1),
    "weight_decay": _NOT_NEGATIVE,
    "clip": _NOT_NEGATIVE,
    "bn_mode": _one_of("batch", "recalibrated"),
    "operations": Rule(f"null or a list of two or more of {list(NASBENCH201_OPERATIONS)}", _is_operations),
    "architectures": Rule(
        "null (one of each group of equal networks), all (every single architecture) or an integer of at least 2",
        lambda value: value in (None, "all") or (type(value) is int and value >= 2),
    ),
    "architecture_seed": _integer(0),
    "precision": _one_of("32-true", "16-mixed", "bf16-mixed", "64-true"),
}


def overridden(protocol: Protocol, settings: Sequence[str]) -> Protocol:
    """Replace settings given as ``name=value``; the name of the protocol then tells so.

    Args:
        protocol: What they are replaced in.
        settings: Values are JSON, words without quotes.

    Returns:
        The changed protocol.

    Raises:
        ConfigurationError: A setting does not exist, is malformed, or would change nothing.
    """
    if not settings:
        return protocol
    changes, problems = _read(settings)
    if not problems:
        changed = dataclasses.replace(protocol, name="+".join([protocol.name, *settings]), **changes)
        problems = list(_unmet(changed, changes))
    if problems:
        raise ConfigurationError(problems)
    return changed


def _read(settings: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values by name, and what is wrong with them."""
    changes: dict[str, Any] = {}
    problems = []
    for setting in settings:
        name, sign, text = setting.partition("=")
        if name not in RULES:
            problems.append(
                f"Argument `set` is expected to name a setting, but got {name!r}. Use one of {', '.join(RULES)}."
            )
        elif name in changes:
            problems.append(f"Argument `set` is expected to give `{name}` once, but got it again. Remove one.")
        else:
            value = _value(text)
            changes[name] = value
            if not sign or not RULES[name].holds(value):
                problems.append(
                    f"Argument `set` is expected to give `{name}` as {RULES[name].expected}, but got {setting!r}. "
                    f"Use `--set '{name}=...'` with such a value."
                )
    return changes, problems


def _value(text: str) -> Any:
    """Read a JSON value; text that is none is a word, for the rules to judge."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _unmet(protocol: Protocol, changes: Mapping[str, Any]) -> Iterator[str]:
    """Say which changes have no effect on this benchmark, or leave nothing to train."""
    ignored = [name for name in changes if name in GROUNDS[protocol.benchmark].ignores]
    if "recalibration_batches" in changes and protocol.bn_mode == "batch":
        ignored.append("recalibration_batches")
    for name in ignored:
        yield (
            f"Argument `set` is expected to change what a run does, but got `{name}`, which has no effect on "
            f"{protocol.benchmark} under `bn_mode={protocol.bn_mode}`. Remove it, or use another protocol."
        )
    if protocol.steps == 0:
        yield (
            f"Argument `set` is expected to leave a batch to train on, but got {protocol.train_images} images for "
            f"batches of {protocol.batch_size}. Use a smaller `batch_size`, or `drop_last=false`."
        )
