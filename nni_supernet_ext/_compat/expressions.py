"""Evaluate NNI's symbolic expressions once per distinct combination of the values they depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nni.mutable import MutableExpression, MutableSymbol
from nni.mutable.symbol import SymbolicExpression

# Keeps a long search over a huge space from filling the memory.
MAX_REMEMBERED = 4096


class Expressions:
    """Resolvers of expressions; one expression used by several modules gets one resolver.

    Example:
        >>> import nni
        >>> width = nni.choice("width", [8, 16])
        >>> Expressions().resolver(width * 2 + 1)({"width": 16})
        33
    """

    def __init__(self) -> None:
        # The expression is kept beside its resolver, for an id is unique only among living objects.
        self._known: dict[int, tuple[Any, Callable[[Mapping[str, Any]], Any]]] = {}

    def resolver(self, expression: MutableExpression) -> Callable[[Mapping[str, Any]], Any]:
        """Return a function of the sample that equals ``expression.freeze(dict(sample))``.

        Args:
            expression: Symbolic expression over labelled choices, or such a choice.
        """
        if id(expression) not in self._known:
            composed = type(expression) is MutableExpression
            resolver = _remembering(expression) if composed else _plain(expression)
            self._known[id(expression)] = (expression, resolver)
        return self._known[id(expression)][1]


def _plain(expression: MutableExpression) -> Callable[[Mapping[str, Any]], Any]:
    return lambda sample: expression.freeze(dict(sample))


def _remembering(expression: MutableExpression) -> Callable[[Mapping[str, Any]], Any]:
    # The same leaf occurs in an expression again and again; NNI visits it every time.
    leaves = list({id(leaf): leaf for leaf in _leaves(expression)}.values())
    if not all(isinstance(leaf, MutableSymbol) for leaf in leaves):
        return _plain(expression)
    labels = list(dict.fromkeys(str.__str__(leaf.label) for leaf in leaves))
    remembered: dict[Any, Any] = {}

    def compute(sample: Mapping[str, Any]) -> Any:
        values = {label: sample[label] for label in labels}
        for leaf in leaves:
            leaf.validate(values)
        return _evaluate(expression, values, {})

    def resolve(sample: Mapping[str, Any]) -> Any:
        key = tuple([_hashable(sample[label]) for label in labels])
        try:
            return remembered[key]
        except KeyError:
            pass
        except TypeError:  # A value that cannot be hashed.
            return compute(sample)
        if len(remembered) >= MAX_REMEMBERED:
            remembered.clear()
        remembered[key] = value = compute(sample)
        return value

    return resolve


def _hashable(value: Any) -> Any:
    # With the type, or 4.0 would be remembered for 4.
    if isinstance(value, list):
        return (list, tuple(map(_hashable, value)))
    return (type(value), value)


def _leaves(expression: SymbolicExpression, seen: set[int] | None = None) -> list[Any]:
    seen = set() if seen is None else seen
    found: list[Any] = []
    for argument in [expression] if isinstance(expression, MutableSymbol) else expression.arguments:
        if not isinstance(argument, SymbolicExpression) or id(argument) in seen:
            continue
        seen.add(id(argument))
        is_leaf = type(argument) is not MutableExpression
        found += [argument] if is_leaf else _leaves(argument, seen)
    return found


def _evaluate(expression: Any, values: dict[str, Any], done: dict[int, Any]) -> Any:
    """Evaluate each shared part of the expression once."""
    if not isinstance(expression, SymbolicExpression):
        return expression
    if id(expression) not in done:
        if isinstance(expression, MutableSymbol):
            done[id(expression)] = expression.evaluate(values)
        else:
            arguments = [_evaluate(argument, values, done) for argument in expression.arguments]
            done[id(expression)] = expression.function(*arguments)
    return done[id(expression)]
