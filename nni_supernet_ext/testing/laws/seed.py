"""The law of seeds: the run's seed alone decides what is random, and nothing is left from another run."""

from __future__ import annotations

from pathlib import Path

from nni_supernet_ext.core.random_state import seeded_globals
from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.laws.demands import require
from nni_supernet_ext.testing.laws.replay import Replay
from nni_supernet_ext.testing.training import RandomState, Run, differing, train


def check_seed(case: MethodCase, root: Path) -> None:
    """Check that a seed fixes draws and weights, another changes them, and global state plays no part in it.

    One of the trainings runs with parts that have trained before: what they keep of it is a fault too.

    Args:
        case: The method. Another seed must change the draws of a method that fills ``paths``, and the weights
            of any other, with the same draws. With a reason in ``no_randomness`` it must change neither.
        root: Empty folder for everything that is written.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: Draws or weights of one seed differ, in fresh or in used parts or under another global
            random state; another seed changes nothing, or something in spite of ``no_randomness``; or the
            global random state of Python, NumPy or torch has changed.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_seed(CASES[0], Path(tempfile.mkdtemp()))
    """
    before = RandomState()
    first = train(case, case.settings(), root / "first")
    require(RandomState() == before, f"{case.name} changes the global random state")
    used = case.settings()
    paths = {} if "paths" in used else {"paths": Replay(first.draws)}
    with seeded_globals(12345):
        other = train(case, {**used, **paths}, root / "other", seed=1)
        again = train(case, used, root / "again")
        if _difference(first, again):
            _explain(case, root, first, again)
    _check_other_seed(case, first, other)


def _explain(case: MethodCase, root: Path, first: Run, again: Run) -> None:
    """Raise what is wrong with the used parts: where fresh ones do no better, the seed is not what decides."""
    difference = _difference(first, train(case, case.settings(), root / "fresh"))
    require(not difference, f"{case.name} {difference} with the same seed")
    raise AssertionError(
        f"{case.name} {_difference(first, again)} where its parts have trained before: `prepare` must reset all "
        "state"
    )


def _check_other_seed(case: MethodCase, first: Run, other: Run) -> None:
    if case.no_randomness:
        difference = _difference(first, other)
        require(not difference, f"{case.name} {difference} with another seed, in spite of `no_randomness`")
    elif "paths" in case.settings():
        require(first.draws != other.draws, f"{case.name} ignores the seed: another one draws the same subnets")
    else:
        require(
            bool(differing(first.weights, other.weights)),
            f"{case.name} ignores the seed: another one trains the same weights. Where nothing in it is random, "
            "say so in `no_randomness`",
        )


def _difference(first: Run, second: Run) -> str:
    """Say how the second run differs from the first; empty where it does not."""
    if first.draws != second.draws:
        return "draws other subnets"
    names = differing(first.weights, second.weights)
    return f"trains other weights ({', '.join(names)})" if names else ""
