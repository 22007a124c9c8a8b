"""Numbers, truth values and paths as arguments: which are right, and one message for those that are not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from numbers import Real
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

__all__ = [
    "as_path",
    "is_number",
    "is_path",
    "is_truth_value",
    "number_problems",
    "path_problems",
    "truth_value_problems",
]


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value is a real number, also one of numpy's; no truth value is."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_truth_value(value: Any) -> TypeGuard[bool]:
    """Tell whether a value is True or False, also numpy's."""
    return isinstance(value, (bool, np.bool_))


def is_path(value: Any) -> TypeGuard[str | os.PathLike[str]]:
    """Tell whether a value names a file or a folder."""
    return isinstance(value, (str, os.PathLike))


def as_path(value: Any) -> Any:
    """Return a path where a value names one, else the value itself, for a check to refuse.

    Example:
        >>> as_path('runs').name, as_path(None), as_path(5)
        ('runs', None, 5)
    """
    return Path(value) if is_path(value) else value


def number_problems(remedy: str, optional: bool = False, **values: Any) -> Iterator[str]:
    """Describe the arguments that are no numbers.

    Args:
        remedy: What to do, as a sentence.
        optional: Whether None is allowed too.
        **values: The arguments by name.

    Yields:
        A message for each wrong one.

    Example:
        >>> list(number_problems("Use 0.1.", min_lr="0.1", rate=0.5))
        ["Argument `min_lr` is expected to be a number, but got '0.1'. Use 0.1."]
    """
    return _problems(is_number, "a number", remedy, optional, values)


def truth_value_problems(remedy: str, **values: Any) -> Iterator[str]:
    """Describe the arguments that are neither True nor False, as :func:`number_problems` does for numbers."""
    return _problems(is_truth_value, "True or False", remedy, False, values)


def path_problems(remedy: str, **values: Any) -> Iterator[str]:
    """Describe the arguments that are neither paths nor None, as :func:`number_problems` does for numbers."""
    return _problems(is_path, "a path", remedy, True, values)


def _problems(
    good: Callable[[Any], bool], expected: str, remedy: str, optional: bool, values: dict[str, Any]
) -> Iterator[str]:
    expected += " or None" * optional
    for name, value in values.items():
        if not good(value) and not (optional and value is None):
            yield f"Argument `{name}` is expected to be {expected}, but got {value!r}. {remedy}"
