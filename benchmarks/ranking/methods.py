"""The methods compared, and what their names mean: parts joined by ``+``, such as ``fairnas+calr+ms``.

Every combination of parts can be asked for; two parts that decide the same thing are refused here, and what else
does not go together by the strategy. Where no callback owns the learning rate, it falls along half a cosine. Every
method gets as many forward and backward passes as one subnet per batch would take: one that makes several passes on
a batch, or trains several supernets, gets fewer batches for each, unless ``long`` is among its parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from parts import MODIFIERS, PARTS, Method, Run
from protocols import Protocol

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.testing.stop import StopAfter


def make_method(name: str, protocol: Protocol, ground: Any, seed: int = 0) -> Method:
    """Put a method together from the parts in its name.

    Args:
        name: Names of `PARTS` joined by ``+``.
        protocol: What it will be trained under.
        ground: The benchmark: an entry of `GROUNDS`.
        seed: Seed of the run.

    Returns:
        The method, with components of its own.

    Raises:
        ConfigurationError: A part does not exist, or two of them exclude each other.
    """
    names = name.split("+")
    problems = list(_name_problems(name, names))
    if problems:
        raise ConfigurationError(problems)
    run = Run(protocol, ground, seed, frozenset(names))
    parts = {part: _made(part, run) for part in names if part not in MODIFIERS}
    problems = [*_conflicts(name, parts), *_idle_modifiers(name, parts, names)]
    if problems:
        raise ConfigurationError(problems)
    return _joined(list(parts.values()), protocol, long="long" in names)


def _made(name: str, run: Run) -> Method:
    """Make a part; refuses what is none, before anything is asked of it."""
    maker = PARTS[name]
    part: object = maker(run) if callable(maker) else maker
    if not callable(maker) or not isinstance(part, Method):
        raise ConfigurationError(
            f"Part `{name}` is expected to be a function of the run that returns a Method, but got "
            f"{'one that returns ' if callable(maker) else ''}{part!r}. Write PARTS[{name!r}] = lambda run: "
            "Method({...})."
        )
    return part


def _joined(parts: list[Method], protocol: Protocol, long: bool) -> Method:
    """Put parts together that do not exclude each other."""
    callbacks = [callback for part in parts for callback in part.arguments.get("callbacks", ())]
    whole = Method(
        {key: value for part in parts for key, value in part.arguments.items()},
        1 if long else math.prod(part.passes for part in parts),
        math.prod(part.supernets for part in parts),
        next((part.few_shot for part in parts if part.few_shot is not None), None),
        {key: value for part in parts for key, value in part.protocol.items()},
        next((part.stop for part in parts if part.stop is not None), None),
    )
    if whole.stop is not None:
        callbacks.append(StopAfter(whole.epochs(protocol)))
    return replace(whole, arguments={**whole.arguments, "callbacks": callbacks})


def _name_problems(name: str, names: list[str]) -> Iterator[str]:
    """Say what is wrong with a name before anything is made of it."""
    known = ", ".join((*PARTS, *MODIFIERS))
    unknown = sorted(set(names) - set(PARTS) - set(MODIFIERS))
    if unknown:
        yield (
            f"Argument `methods` is expected to hold known parts, but got {', '.join(map(repr, unknown))} in "
            f"{name!r}. Use {known}; what needs no training stands alone."
        )
    elif set(names) <= set(MODIFIERS):
        yield (
            f"Argument `methods` is expected to hold a part that can be trained, but got {name!r}. Use it beside "
            "another, as in 'fairnas+long'."
        )
    if len(set(names)) < len(names):
        yield f"Argument `methods` is expected to hold each part once, but got {name!r}. Remove the second."


def _conflicts(name: str, parts: Mapping[str, Method]) -> Iterator[str]:
    """Say which parts decide the same thing: the last would silently replace the others."""
    owners: dict[str, list[str]] = {}
    for part, method in parts.items():
        for thing in _decided(method):
            owners.setdefault(thing, []).append(part)
    for thing, several in owners.items():
        if len(several) > 1:
            yield (
                f"Argument `methods` is expected to hold one part that decides {thing}, but got "
                f"{' and '.join(several)} in {name!r}. Use one of them."
            )


def _idle_modifiers(name: str, parts: Mapping[str, Method], names: list[str]) -> Iterator[str]:
    """Refuse another name for the same method."""
    if "long" in names and all(part.passes == 1 for part in parts.values()):
        yield (
            f"Part `long` is expected beside one that makes several passes, but got {name!r}, which makes one. "
            "Remove `long`: it would change nothing."
        )


def _decided(method: Method) -> set[str]:
    """Return what a part decides, in words."""
    callbacks = {type(callback).__name__ for callback in method.arguments.get("callbacks", ())}
    slots = {f"`{key}`" for key in method.arguments if key != "callbacks"}
    settings = {f"`{key}`" for key in method.protocol}
    others = {"the parts of few-shot training"} if method.few_shot is not None else set()
    ends = {"the end of training"} if method.stop is not None else set()
    return callbacks | slots | settings | others | ends
