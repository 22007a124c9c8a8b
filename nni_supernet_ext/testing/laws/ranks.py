"""The law of ranks: processes that train together stay together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.laws.demands import require
from nni_supernet_ext.testing.processes import train_in_processes
from nni_supernet_ext.testing.training import differing


def check_ranks(cases: Sequence[MethodCase], root: Path, epochs: int = 4) -> None:
    """Check that two processes training together draw the same subnets and end with equal weights.

    They train on the CPU by DistributedDataParallel. What :func:`check_resume` says of settings and modules
    holds here too. Running statistics of batch normalisation may differ, as they do without any method.

    Args:
        cases: The methods; the two processes train all of them, so that they start once.
        root: Empty folder for everything that is written.
        epochs: Length of the training. Default 4: a method may gather in one epoch what it uses two epochs later.
            Give more for one that begins later.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: Draws or weights differ between the processes, or one failed or did not end; their output
            is in the message.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_ranks(CASES[:2], Path(tempfile.mkdtemp()))  # doctest: +SKIP
    """
    first, second = train_in_processes(cases, root, epochs=epochs, world_size=2)
    for case, mine, theirs in zip(cases, first, second, strict=True):
        require(mine["draws"] == theirs["draws"], f"{case.name} draws other subnets on another rank")
        weights = {name for name in differing(mine["weights"], theirs["weights"])}
        # Running statistics are each rank's own, as under plain DistributedDataParallel.
        weights = {name for name in weights if "running_" not in name}
        require(not weights, f"{case.name} ends with other weights on another rank: {sorted(weights)}")
