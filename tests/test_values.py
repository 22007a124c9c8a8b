"""Numbers, truth values and paths as arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_supernet_ext._values import (
    as_path,
    is_number,
    is_truth_value,
    number_problems,
    path_problems,
    truth_value_problems,
)


@pytest.mark.parametrize(
    ("value", "number", "truth"),
    [
        (1, True, False),
        (0.5, True, False),
        (np.float32(2), True, False),
        (np.int64(3), True, False),
        (True, False, True),
        (np.bool_(False), False, True),
        ("1.0", False, False),
        ("no", False, False),
        (None, False, False),
        ([1.0], False, False),
    ],
)
def test_which_are_numbers_and_truth_values(value: Any, number: bool, truth: bool) -> None:
    assert is_number(value) is number and is_truth_value(value) is truth


def test_only_names_become_paths() -> None:
    assert as_path("a") == Path("a") and as_path(Path("a")) == Path("a")
    assert as_path(3) == 3 and as_path(None) is None


def test_every_wrong_one_is_named() -> None:
    assert list(number_problems("Use 1.", optional=True, a="1", b=None, c=2)) == [
        "Argument `a` is expected to be a number or None, but got '1'. Use 1."
    ]
    assert list(truth_value_problems("Use True.", a="no", b=False)) == [
        "Argument `a` is expected to be True or False, but got 'no'. Use True."
    ]
    assert list(path_problems("Name one.", a=3, b=None, c="x")) == [
        "Argument `a` is expected to be a path or None, but got 3. Name one."
    ]
