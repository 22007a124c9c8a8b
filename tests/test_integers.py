"""Whole numbers as arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nni_supernet_ext._integers import integer_problems, is_integer, require_integers
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.recipes import panda_evaluator_settings


@pytest.mark.parametrize(
    ("value", "positive", "not_negative"),
    [(1, True, True), (0, False, True), (-1, False, False), (np.int64(3), True, True), (np.int64(-3), False, False)]
    + [(wrong, False, False) for wrong in (True, False, 2.0, np.float32(2), "2", None, [2], float("nan"))],
)
def test_which_are_in_range(value: Any, positive: bool, not_negative: bool) -> None:
    assert is_integer(value) is positive and is_integer(value, 0) is not_negative


def test_every_wrong_one_is_named() -> None:
    problems = list(integer_problems("Use 2.", least=2, a=1, b=2, c=None))
    assert problems == [
        "Argument `a` is expected to be an integer of at least 2, but got 1. Use 2.",
        "Argument `c` is expected to be an integer of at least 2, but got None. Use 2.",
    ]
    assert list(integer_problems("Use None.", optional=True, a=None, b=0)) == [
        "Argument `b` is expected to be a positive integer or None, but got 0. Use None."
    ]
    with pytest.raises(ConfigurationError, match="2 problems"):
        require_integers("Use 1.", a=0, b=-1)
    require_integers("Use 1.", a=1)


def test_a_recipe_refuses_no_epochs() -> None:
    with pytest.raises(ConfigurationError, match="`epochs` is expected to be a positive integer, but got 0"):
        panda_evaluator_settings(epochs=0)
    assert panda_evaluator_settings(epochs=1)["max_epochs"] == 1
