"""Whole numbers as arguments: which are in range, and one message for those that are not."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any, TypeGuard

from nni_supernet_ext.errors import ConfigurationError

__all__ = ["integer_problems", "is_integer", "require_integers"]


def is_integer(value: Any, least: int = 1) -> TypeGuard[int]:
    """Tell whether a value is a whole number, also one of numpy's, and at least so large; no truth value is."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def integer_problems(remedy: str, least: int = 1, optional: bool = False, **values: Any) -> Iterator[str]:
    """Describe the arguments that are no such numbers.

    Args:
        remedy: What to do, as a sentence.
        least: Smallest number allowed. Default 1.
        optional: Whether None is allowed too.
        **values: The arguments by name.

    Yields:
        A message for each wrong one.

    Example:
        >>> list(integer_problems("Use 4.", batches=0, subnets=2))
        ['Argument `batches` is expected to be a positive integer, but got 0. Use 4.']
    """
    expected = ("a positive integer" if least == 1 else f"an integer of at least {least}") + " or None" * optional
    for name, value in values.items():
        if not is_integer(value, least) and not (optional and value is None):
            yield f"Argument `{name}` is expected to be {expected}, but got {value!r}. {remedy}"


def require_integers(remedy: str, least: int = 1, **values: Any) -> None:
    """Refuse arguments that are no such numbers, as :func:`integer_problems` describes them.

    Raises:
        ConfigurationError: Some are not; it names all of them.
    """
    problems = list(integer_problems(remedy, least, **values))
    if problems:
        raise ConfigurationError(problems)
