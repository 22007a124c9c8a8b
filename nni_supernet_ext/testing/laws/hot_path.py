"""The law of the hot path: no step waits for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nni_supernet_ext.core.guard import NonFiniteGuard
from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.device_reads import device_reads
from nni_supernet_ext.testing.laws.demands import require
from nni_supernet_ext.testing.training import Run, train

_EPOCHS = 2


def check_hot_path(case: MethodCase, root: Path) -> None:
    """Check that steps read no values from the device, as ``.item()``, ``float()`` and ``bool()`` of a tensor do.

    A training with up to four batches an epoch is compared with one of half as many, on the CPU, so that what is
    read once an epoch does not count. Nor does less than one read a step: an epoch of more subnets may report more
    of them. ``.cpu()``, ``.numpy()`` and ``.tolist()`` do not show on a CPU.

    Args:
        case: The method. Its evaluator takes ``limit_train_batches`` and has at least two batches. With a reason
            in ``reads_by_design`` its steps must read something.
        root: Empty folder for everything that is written.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: As many reads as there are steps are added by further steps; or none in spite of
            ``reads_by_design``; or there is a single batch.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_hot_path(CASES[0], Path(tempfile.mkdtemp()))
    """
    runs: list[Run] = []

    def training(batches: int) -> None:
        limit = {"limit_train_batches": batches}
        runs.append(train(case, case.settings(), root / str(batches), epochs=_EPOCHS, evaluator_arguments=limit))

    with _unwatched_losses():
        many = device_reads(lambda: training(4))
        batches = len(runs[0].draws) // _EPOCHS
        require(batches > 1, f"{case.name} trains on a single batch an epoch. Give its evaluator four")
        added = many - device_reads(lambda: training(batches // 2))
    steps = len(runs[0].draws) - len(runs[1].draws)
    if case.reads_by_design:
        require(added >= steps, f"{case.name} reads nothing in its steps, in spite of `reads_by_design`")
    else:
        require(
            added < steps,
            f"{case.name} reads values from the device in its steps: {added} times in {steps} further steps. "
            "Gather tensors and read them once an epoch, or give the reason in `reads_by_design`",
        )


@contextmanager
def _unwatched_losses() -> Iterator[None]:
    """Switch off what the step itself does on a CPU only, where it costs nothing: look at every loss."""
    watch = NonFiniteGuard.watch
    NonFiniteGuard.watch = lambda *_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        NonFiniteGuard.watch = watch  # type: ignore[method-assign]
