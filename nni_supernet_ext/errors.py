"""The exceptions this package raises, each also an instance of the builtin a caller would expect.

Every message is one sentence of the form "Argument `x` is expected to be ..., but got ...", followed by a
sentence that names the remedy.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "ConstraintError",
    "DataError",
    "SpaceError",
    "SupernetError",
    "TrainingDivergedError",
]


class SupernetError(Exception):
    """Be the common base of everything this package raises on purpose.

    Example:
        >>> issubclass(ConfigurationError, SupernetError)
        True
    """


def _numbered(problems: tuple[str, ...]) -> str:
    """Render one problem as itself and several as a numbered list."""
    if len(problems) == 1:
        return problems[0]
    lines = [f"{len(problems)} problems were found:"]
    lines += [f"  {number}. {problem}" for number, problem in enumerate(problems, start=1)]
    return "\n".join(lines)


class ConfigurationError(SupernetError, ValueError):
    """Report one or several wrong settings at once, each with its remedy.

    Args:
        problems: One message, or several that were collected before raising.

    Attributes:
        problems: The messages, in the order given, as a tuple of strings.

    Example:
        >>> print(ConfigurationError(["Slot `data` is taken twice.", "Slot `paths` is empty."]))
        2 problems were found:
          1. Slot `data` is taken twice.
          2. Slot `paths` is empty.
        >>> ConfigurationError("Argument `seed` is expected to be an int.").problems
        ('Argument `seed` is expected to be an int.',)
    """

    problems: tuple[str, ...]

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(map(str, problems))
        super().__init__(_numbered(self.problems))

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[tuple[str, ...]]]:
        # The default would rebuild from the rendered text and merge the problems into one.
        return type(self), (self.problems,)


class SpaceError(ConfigurationError):
    """Report a search space or a sample that does not fit it.

    Example:
        >>> isinstance(SpaceError("Label `depth` is missing from the sample."), ValueError)
        True
    """


class ConstraintError(SupernetError, ValueError):
    """Report a constraint that is malformed or that no subnet satisfies.

    Example:
        >>> issubclass(ConstraintError, ValueError)
        True
    """


class DataError(SupernetError, ValueError):
    """Report data (a table, a data set, a loader) that is missing or malformed.

    Example:
        >>> issubclass(DataError, ValueError)
        True
    """


class CheckpointError(SupernetError, RuntimeError):
    """Report a checkpoint that cannot be read or belongs to another configuration.

    Example:
        >>> issubclass(CheckpointError, RuntimeError)
        True
    """


class TrainingDivergedError(SupernetError, RuntimeError):
    """Report training whose loss or weights stopped being finite.

    Example:
        >>> issubclass(TrainingDivergedError, RuntimeError)
        True
    """
