"""The law of order: callbacks that own different decisions may come in any order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.laws.demands import require_equal
from nni_supernet_ext.testing.laws.hosts import host
from nni_supernet_ext.testing.training import train


def check_commute(cases: Sequence[MethodCase], root: Path) -> None:
    """Check that callbacks with different claims give the same weights in any order.

    Only the callbacks of the cases are trained, with every slot at its default. Pairs that claim the same
    decision, and cases without callbacks, are passed over.

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
            callbacks = [callback for case in order for callback in case.settings()["callbacks"]]
            name = "-".join(case.name for case in order)
            runs.append(train(host((first, second)), {"callbacks": callbacks}, root / name))
        require_equal(runs[0], runs[1], f"{first.name} and {second.name} depend on their order")


def _claims(callbacks: Iterable[Any]) -> set[str]:
    return {claim for callback in callbacks for claim in getattr(callback, "claims", ())}
