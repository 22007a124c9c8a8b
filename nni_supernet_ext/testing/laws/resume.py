"""The law of resuming: a training cut in two is the same training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.laws.demands import require
from nni_supernet_ext.testing.processes import train_in_processes
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.testing.training import Run, differing, train


def check_resume(cases: Sequence[MethodCase], root: Path, epochs: int = 2) -> None:
    """Check that k steps, a checkpoint and k steps in a fresh process equal 2k steps, bit for bit.

    The fresh process must be able to import the modules that define the settings (installed, or in the working
    directory); what a script or a notebook defines itself is sent along. It trains with one thread: call
    ``torch.set_num_threads(1)`` before the law, since other numbers of threads may round otherwise.

    Args:
        cases: The methods, with names of their own; one process resumes all of them, so that it starts once.
        root: Empty folder for everything that is written.
        epochs: Length of the whole training, at least 2. The first half runs before the checkpoint.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: Draws or weights after resuming differ from those of the unbroken training, or the
            process failed; its output is in the message.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_resume(CASES[:2], Path(tempfile.mkdtemp()))  # doctest: +SKIP
    """
    half = [_straight(case, root / case.name, epochs, stop_after=epochs // 2) for case in cases]
    resumed = train_in_processes(
        cases, root / "jobs", epochs=epochs, checkpoints=[root / case.name for case in cases]
    )[0]
    for case, first, rest in zip(cases, half, resumed, strict=True):
        whole = train(case, case.settings(), root / case.name / "whole", epochs=epochs)
        draws = [*first.draws, *rest["draws"]]
        require(draws == whole.draws, f"{case.name} draws other subnets after resuming")
        require(
            not differing(rest["weights"], whole.weights),
            f"{case.name} trains other weights after resuming: {differing(rest['weights'], whole.weights)}",
        )


def _straight(case: MethodCase, root: Path, epochs: int, stop_after: int) -> Run:
    settings = case.settings()
    settings["callbacks"] = [*settings.get("callbacks", []), StopAfter(stop_after)]
    return train(case, {**settings, "checkpoint_dir": root / "checkpoint"}, root, epochs=epochs)
