"""The exception tree: builtin bases, several problems at once, and survival of pickling."""

from __future__ import annotations

import pickle

import pytest

from nni_supernet_ext import errors


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ConfigurationError, ValueError),
        (errors.SpaceError, ValueError),
        (errors.ConstraintError, ValueError),
        (errors.DataError, ValueError),
        (errors.CheckpointError, RuntimeError),
        (errors.TrainingDivergedError, RuntimeError),
    ],
)
def test_every_error_can_be_caught_as_its_builtin_and_as_ours(
    error: type[Exception], builtin: type[Exception]
) -> None:
    for caught in (builtin, errors.SupernetError):
        with pytest.raises(caught, match=r"^what went wrong$"):
            raise error("what went wrong")


def test_a_single_problem_is_its_own_message() -> None:
    error = errors.ConfigurationError("Argument `seed` is expected to be an int, but got 'a'.")
    assert str(error) == "Argument `seed` is expected to be an int, but got 'a'."
    assert error.problems == (str(error),)


def test_several_problems_are_raised_as_one_numbered_list() -> None:
    error = errors.ConfigurationError(problem for problem in ["first", "second", "third"])
    assert error.problems == ("first", "second", "third")
    assert str(error).splitlines()[1:] == ["  1. first", "  2. second", "  3. third"]


def test_problems_survive_pickling_between_processes() -> None:
    error = pickle.loads(pickle.dumps(errors.SpaceError(["one", "two"])))
    assert type(error) is errors.SpaceError
    assert error.problems == ("one", "two")


def test_all_names_every_exception() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert set(errors.__all__) == defined - {"Iterable"}
