"""Which arguments of an evolutionary search are out of range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nni_supernet_ext._integers import is_integer
from nni_supernet_ext._values import is_number, is_path, is_truth_value
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.metric_direction import warn_of_unusual_mode
from nni_supernet_ext.core.slots import WeightStore
from nni_supernet_ext.errors import SpaceError


def argument_problems(search: Any) -> list[str]:
    """Return a message for each argument that is out of range; warn of a direction that is unusual for the metric.

    Args:
        search: A `SupernetEvolution` with its arguments as attributes.

    Returns:
        The messages, none where all is well.
    """
    problems = [
        f"Argument `{name}` is expected to be {expected}, but got {getattr(search, name)!r}. Correct it."
        for name, (good, expected) in _RULES.items()
        if not good(getattr(search, name))
    ]
    if not isinstance(search.weights, WeightStore):
        problems.append(
            f"Argument `weights` is expected to be a WeightStore, but got {type(search.weights).__name__}. Give "
            "the `weights` of the strategy that trained the supernet."
        )
    warn_of_unusual_mode(search.metric, search.mode, type(search).__name__)
    return problems


def check_space(domain: Domain) -> None:
    """Refuse a space that evolution cannot search.

    Raises:
        SpaceError: A choice has no finite candidates.
    """
    if len(domain.options) != len(domain.labels):
        infinite = [label for label in domain.labels if label not in domain.options]
        raise SpaceError(
            f"Every choice is expected to have finitely many candidates for SupernetEvolution, but got "
            f"{infinite} without. Use LayerChoice, InputChoice or nni.choice there."
        )


_POSITIVE = (is_integer, "a positive integer")
_NOT_NEGATIVE = (lambda value: is_integer(value, 0), "an integer of at least 0")
_BOUND = (lambda value: value is None or (is_number(value) and value > 0), "a positive number or None")
_TRUTH_VALUE = (is_truth_value, "True or False")
_PATH = (lambda value: value is None or is_path(value), "a path or None")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "population": _POSITIVE,
    "cycles": _NOT_NEGATIVE,
    "parents": _POSITIVE,
    "subnets_per_trial": _POSITIVE,
    "recalibrate_batches": _NOT_NEGATIVE,
    "limit_batches": (lambda value: value is None or is_integer(value), "a positive integer or None"),
    "seed": _NOT_NEGATIVE,
    "max_parameters": _BOUND,
    "max_flops": _BOUND,
    "mutation_probability": (lambda value: is_number(value) and 0 < value <= 1, "in (0, 1]"),
    "crossover_share": (lambda value: is_number(value) and 0 <= value <= 1, "in [0, 1]"),
    "constraint": (lambda value: value is None or callable(value), "a function of the sample or None"),
    "metric": (lambda value: isinstance(value, str), "the name of a logged metric"),
    "count_flops": _TRUTH_VALUE,
    "record": _TRUTH_VALUE,
    "progress": _TRUTH_VALUE,
    "journal": _PATH,
    "shared_folder": _PATH,
    "mode": (lambda value: value in ("max", "min"), "'max' or 'min'"),
}
