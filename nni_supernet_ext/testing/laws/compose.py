"""The law of combinations: each trains or is refused with a remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.laws.demands import require
from nni_supernet_ext.testing.laws.hosts import host
from nni_supernet_ext.testing.training import train

_SLOTS = ("paths", "data", "weights", "objective")


def check_compose(cases: Sequence[MethodCase], root: Path) -> dict[tuple[str, ...], str]:
    """Check that every pair, and all together, trains or is refused with a remedy.

    Combinations that fill one slot twice, or disagree on another argument, cannot be written down and are
    missing from the result.

    Args:
        cases: The methods; a combination is trained in the space of the first that is not :class:`ToySpace`.
        root: Empty folder for everything that is written.

    Returns:
        Names of the combination -> ``'works'`` or the refusal.

    Raises:
        AssertionError: A combination is refused by a message that does not name the remedy in a sentence of
            its own. Any other error than a refusal is raised as it is.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> cases = [case for case in CASES if case.name in ('ComplexityAwareLR', 'MomentumSeparation')]
        >>> check_compose(cases, Path(tempfile.mkdtemp()))
        {('ComplexityAwareLR', 'MomentumSeparation'): 'works'}
    """
    outcomes: dict[tuple[str, ...], str] = {}
    together = [tuple(cases)] if len(cases) != 2 else []  # two are a pair already
    for group in [*combinations(cases, 2), *together]:
        merged = merge_settings(case.settings() for case in group)
        if merged is None:
            continue
        names = tuple(case.name for case in group)
        try:
            train(host(group), merged, root / "-".join(names)[:120], epochs=1)
            outcomes[names] = "works"
        except ConfigurationError as error:
            require(
                all(problem.count(". ") >= 1 for problem in error.problems),
                f"{names} is refused without a remedy: {error}",
            )
            outcomes[names] = str(error)
    return outcomes


def merge_settings(settings: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Join settings into one; None where two fill the same slot, which the signature makes impossible."""
    merged: dict[str, Any] = {"callbacks": []}
    for part in settings:
        for key, value in part.items():
            if key == "callbacks":
                merged["callbacks"] = [*merged["callbacks"], *value]
            elif key in merged and (key in _SLOTS or merged[key] != value):
                return None
            else:
                merged[key] = value
    return merged
