"""The law of neutrality: switched off, a method is plain training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nni_supernet_ext.core.component import Component
from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.laws.demands import require, require_equal
from nni_supernet_ext.testing.training import train


def check_neutral(case: MethodCase, root: Path) -> None:
    """Check that a method at its neutral setting leaves the weights equal to plain training, bit for bit.

    Args:
        case: The method; its neutral settings hold parts of the same classes. Without ``neutral`` nothing
            is trained: the law asks only for a reason in ``no_neutral``, and what the method does to plain
            training needs a test of its own.
        root: Empty folder for everything that is written.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: The weights differ, named; the neutral settings lack the method; or there is neither a
            neutral setting nor a reason.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_neutral(CASES[0], Path(tempfile.mkdtemp()))
    """
    if case.neutral is None:
        require(bool(case.no_neutral), f"{case.name} has no neutral setting and gives no reason")
        return
    lacking = [kind.__name__ for kind in _kinds(case.settings()) - _kinds(case.neutral())]
    require(
        not lacking, f"{case.name} has a neutral setting without {lacking}: there is no method in it to compare"
    )
    neutral = train(case, case.neutral(), root / "neutral")
    reference = train(case, case.reference(), root / "reference", evaluator_arguments=case.reference_evaluator)
    require_equal(neutral, reference, f"{case.name} at its neutral setting changes the training")


def _kinds(settings: Mapping[str, Any]) -> Counter[type]:
    """Count the classes of the parts and callbacks among settings."""
    slots = [value for value in settings.values() if isinstance(value, Component)]
    return Counter(type(part) for part in (*slots, *settings.get("callbacks", ())))
