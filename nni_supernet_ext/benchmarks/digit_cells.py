"""Ground truth of a small, complete benchmark that comes with the package: 729 cells on handwritten digits."""

from __future__ import annotations

from pathlib import Path

from nni_supernet_ext.benchmarks.oracle import Architecture, BenchmarkOracle, check_choice
from nni_supernet_ext.benchmarks.tables import TableFormat

__all__ = ["DigitCellsOracle"]

_SEEDS = (0, 1, 2)


class DigitCellsOracle(BenchmarkOracle):
    """Look up what was measured for an architecture of `spaces.digit_cells`, trained alone from scratch.

    Every architecture was trained three times on 512 digits of scikit-learn under noise, for 240 steps; its
    accuracies were measured on 585 validation and on 700 test images. ``benchmarks/digit_cells.py`` of the
    source tree makes the table again. An architecture is given as a sample of the space, as the six digits of its
    edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3 (1 skip connection, 2 and 3 convolutions of size 1 and 3), or as its row.

    Args:
        path: Another table of this form. Default: the one in the package.

    Attributes:
        table: Column name -> array over the 729 architectures, read-only: ``code``; ``group``, equal for
            architectures that are the same network; ``valid_0`` ... ``test_2``, accuracies in percent by seed;
            ``loss_0`` ..., training losses of the last epoch.

    Raises:
        DataError: There is no such file, or it is not such a table.

    Example:
        >>> oracle = DigitCellsOracle()
        >>> len(oracle), oracle.sample('111113')['cell/2_3']
        (729, 'conv_3x3')
        >>> oracle.accuracy('333333') > oracle.accuracy('111111')
        True
    """

    format = TableFormat(
        name="DigitCells",
        file="digit_cells",
        labels=("cell/0_1", "cell/0_2", "cell/1_2", "cell/0_3", "cell/1_3", "cell/2_3"),
        candidates=("none", "skip_connect", "conv_1x1", "conv_3x3"),
        code="code",
        group="group",
        source="`python benchmarks/digit_cells.py` of the source tree makes it",
        packaged=Path(__file__).with_name("digit_cells.csv"),
    )

    def accuracy(self, architecture: Architecture, split: str = "test", seed: int | None = None) -> float:
        """Return the measured top-1 accuracy.

        Args:
            architecture: Sample, digits or row.
            split: ``test`` (default), or ``valid`` for the images that a search may use.
            seed: 0, 1 or 2 for a single training; None (default) for the mean of the three.

        Returns:
            Accuracy in percent.

        Raises:
            ConfigurationError: There is no such split or seed.
            SpaceError: The architecture is malformed.
            DataError: The table has no such architecture.

        Example:
            >>> oracle = DigitCellsOracle()
            >>> runs = [oracle.accuracy('333333', seed=seed) for seed in range(3)]
            >>> abs(sum(runs) / 3 - oracle.accuracy('333333')) < 1e-9
            True
        """
        check_choice("split", split, ("test", "valid"))
        check_choice("seed", seed, (None, *_SEEDS))
        if seed is not None:
            return self._value(f"{split}_{seed}", architecture)
        return sum(self._value(f"{split}_{one}", architecture) for one in _SEEDS) / len(_SEEDS)
