"""The space and evaluator in which several cases train together."""

from __future__ import annotations

from collections.abc import Sequence

from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.toys import ToySpace


def host(cases: Sequence[MethodCase]) -> MethodCase:
    """Return the case whose space and evaluator a group trains in: one with needs of its own, if any."""
    return next((case for case in cases if case.space is not ToySpace), cases[0])
