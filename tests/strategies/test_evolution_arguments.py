"""Arguments of the search of a wrong kind."""

from __future__ import annotations

from typing import Any

import pytest

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.strategies import SupernetEvolution


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_parameters", True, "a positive number or None"),
        ("max_flops", "1e6", "a positive number or None"),
        ("mutation_probability", True, r"in \(0, 1\]"),
        ("crossover_share", "0.5", r"in \[0, 1\]"),
        ("record", "no", "True or False"),
        ("journal", 5, "a path or None"),
        ("shared_folder", 4, "a path or None"),
        ("progress", "no", "True or False"),
        ("count_flops", "no", "True or False"),
    ],
)
def test_wrong_kinds(name: str, value: Any, expected: str) -> None:
    message = f"`{name}` is expected to be {expected}, but got {value!r}"
    with pytest.raises(ConfigurationError, match=message):
        SupernetEvolution(**{name: value})


def test_all_at_once() -> None:
    with pytest.raises(ConfigurationError) as error:
        SupernetEvolution(record=None, max_parameters=False, mode="best")  # type: ignore[arg-type]
    assert len(error.value.problems) == 3
