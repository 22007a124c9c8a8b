"""The law of resuming: a training cut in two is the same training, and one that is over stays as it ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.laws.demands import require
from nni_supernet_ext.testing.processes import train_in_processes
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.testing.training import Run, differing, train


def check_resume(cases: Sequence[MethodCase], root: Path, epochs: int = 4) -> None:
    """Check that k steps, a checkpoint and k steps in a fresh process equal 2k steps, bit for bit.

    The finished run is then given again with its ``checkpoint_dir``: it trains no further, and must leave the
    weights that it ended with.

    The fresh process must be able to import the modules that define the settings (installed, or in the working
    directory); what a script or a notebook defines itself is sent along. It trains with one thread: call
    ``torch.set_num_threads(1)`` before the law, since other numbers of threads may round otherwise.

    Args:
        cases: The methods, with names of their own; one process resumes all of them, so that it starts once.
        root: Empty folder for everything that is written.
        epochs: Length of the whole training, at least 2. The first half runs before the checkpoint. Default 4:
            what an epoch gathers may be used in the next, so that a state that is not saved may need two epochs
            on either side of the checkpoint to show. Give more for a method that begins later.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: Draws or weights after resuming differ from those of the unbroken training; the finished
            run trains on, or has other weights, when it is repeated; or the process failed or did not end: its
            output is in the message.

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
        _check_repeated(case, root / case.name, epochs, whole)


def _straight(case: MethodCase, root: Path, epochs: int, stop_after: int) -> Run:
    settings = case.settings()
    settings["callbacks"] = [*settings.get("callbacks", []), StopAfter(stop_after)]
    return train(case, {**settings, "checkpoint_dir": root / "checkpoint"}, root, epochs=epochs)


def _check_repeated(case: MethodCase, root: Path, epochs: int, whole: Run) -> None:
    """Give the finished run of a folder once more."""
    repeated = train(case, {**case.settings(), "checkpoint_dir": root / "checkpoint"}, root, epochs=epochs)
    require(not repeated.draws, f"{case.name} trains on when its finished run is repeated")
    names = differing(repeated.weights, whole.weights)
    require(
        not names,
        f"{case.name} ends with other weights when its finished run is repeated: {names}. Change the final weights "
        "in `on_fit_end`, which runs then too, by `pl_module.restored_state(self)`",
    )
