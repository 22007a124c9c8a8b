"""The law of order: callbacks that own different decisions may come in any order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.laws.compose import merge_settings
from nni_supernet_ext.testing.laws.demands import require, require_equal
from nni_supernet_ext.testing.laws.hosts import host
from nni_supernet_ext.testing.training import train


def check_commute(cases: Sequence[MethodCase], root: Path) -> None:
    """Check that callbacks with different claims give the same weights in any order.

    The callbacks are trained in the slots that the cases bring. Passed over are cases without callbacks, pairs that
    claim the same decision or fill the same slot, and pairs that are refused, of which :func:`check_compose` tells.

    Args:
        cases: The methods; every pair is trained in both orders, in the space of the first of the two that is
            not :class:`ToySpace`.
        root: Empty folder for everything that is written.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: The weights of a pair depend on the order.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> cases = [case for case in CASES if case.name in ('CosineLR', 'TrainingHistory')]
        >>> check_commute(cases, Path(tempfile.mkdtemp()))
    """
    for first, second in combinations(cases, 2):
        settings = [first.settings().get("callbacks", []), second.settings().get("callbacks", [])]
        if not all(settings) or _claims(settings[0]) & _claims(settings[1]):
            continue
        runs = []
        for order in permutations((first, second)):
            merged = merge_settings(case.settings() for case in order)
            if merged is None:
                break
            with suppress(ConfigurationError):
                runs.append(train(host((first, second)), merged, root / "-".join(case.name for case in order)))
        require(len(runs) != 1, f"{first.name} and {second.name} are refused in one order only")
        if runs:
            require_equal(runs[0], runs[1], f"{first.name} and {second.name} depend on their order")


def _claims(callbacks: Iterable[Any]) -> set[str]:
    return {claim for callback in callbacks for claim in getattr(callback, "claims", ())}
