"""Ground truth of all 6,561 NAS-Bench-Macro architectures: accuracies of three runs, parameters, FLOPs."""

from __future__ import annotations

from nni_supernet_ext.benchmarks.oracle import Architecture, BenchmarkOracle, check_choice
from nni_supernet_ext.benchmarks.tables import TableFormat

__all__ = ["NasBenchMacroOracle"]

_RUNS = (None, 1, 2, 3)


class NasBenchMacroOracle(BenchmarkOracle):
    """Look up what NAS-Bench-Macro measured for a chain of eight layers, on CIFAR-10.

    An architecture is given as a sample of the search space, as its eight digits (0 identity, 1 and 2 the
    inverted bottlenecks MB3_K3 and MB6_K5), or as its row 0..6560. Behind the first layer of a stage (of 2, 3 and 3
    layers) it makes no difference to the network where the identities stand, so 2,592 of the architectures share
    the measurement of another.

    Args:
        path: Table as a csv file (may be gzipped), or the folder that holds ``nas_bench_macro.csv.gz``. Default:
            the folder named by the environment variable ``NNI_SUPERNET_DATA``.

    Attributes:
        table: Column name -> array over all architectures, read-only: ``arch`` and ``canonical`` as text, the
            others as numbers (accuracies in percent).

    Raises:
        DataError: There is no such file, or it is not such a table.

    Example:
        >>> oracle = NasBenchMacroOracle.from_columns({
        ...     "arch": ["00000002", "00000020"], "canonical": ["00000020", "00000020"],
        ...     "acc_mean": [75.5, 75.5], "params": [4e5, 4e5], "flops": [1e7, 1e7],
        ... })
        >>> oracle.accuracy("00000002"), oracle.params("00000002"), oracle.distinct()
        (75.5, 400000, [1])

    Reference:
        Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021.
    """

    format = TableFormat(
        name="NAS-Bench-Macro",
        file="nas_bench_macro",
        labels=tuple(f"layer{index}" for index in range(8)),
        candidates=("identity", "mb3_k3", "mb6_k5"),
        texts=("canonical",),
        source="the measurements are published by its authors (xiusu/NAS-Bench-Macro)",
    )

    def distinct(self) -> list[int]:
        """Return one architecture for each network: the one that was really trained.

        Returns:
            Rows in ascending order; 3,969 in the full benchmark.

        Example:
            >>> NasBenchMacroOracle.from_columns({"arch": ["00000002"], "canonical": ["00000020"]}).distinct()
            []
        """
        return (self.table["arch"] == self.table["canonical"]).nonzero()[0].tolist()

    def canonical(self, architecture: Architecture) -> str:
        """Return the digits of the network that was trained: in each stage identities behind the first layer last.

        Args:
            architecture: Sample, digits or row.

        Returns:
            Eight digits, equal for architectures that are the same network.

        Raises:
            SpaceError: The architecture is malformed.
            DataError: The table has no such architecture.

        Example:
            >>> oracle = NasBenchMacroOracle.from_columns({"arch": ["00000002"], "canonical": ["00000020"]})
            >>> oracle.canonical("00000002")
            '00000020'
        """
        return str(self.table["canonical"][self.index(architecture)])

    def accuracy(self, architecture: Architecture, run: int | None = None) -> float:
        """Return the measured top-1 test accuracy.

        Args:
            architecture: Sample, digits or row.
            run: 1, 2 or 3 for a single training; None (default) for the mean of the three.

        Returns:
            Accuracy in percent.

        Raises:
            ConfigurationError: There is no such run.
            SpaceError: The architecture is malformed.
            DataError: The table has no such architecture or column.

        Example:
            >>> oracle = NasBenchMacroOracle.from_columns(
            ...     {"arch": ["00000000"], "canonical": ["00000000"], "acc_2": [45.25]})
            >>> oracle.accuracy("00000000", run=2)
            45.25
        """
        check_choice("run", run, _RUNS)
        return self._value("acc_mean" if run is None else f"acc_{run}", architecture)

    def params(self, architecture: Architecture) -> int:
        """Return the number of parameters.

        Args:
            architecture: Sample, digits or row.

        Returns:
            Number of parameters.

        Raises:
            SpaceError: The architecture is malformed.
            DataError: The table has no such architecture or column.

        Example:
            >>> oracle = NasBenchMacroOracle.from_columns(
            ...     {"arch": ["00000000"], "canonical": ["00000000"], "params": [387882]})
            >>> oracle.params("00000000")
            387882
        """
        return self._integer("params", architecture)

    def flops(self, architecture: Architecture) -> int:
        """Return the multiply-adds for one image, as the benchmark counts them.

        Args:
            architecture: Sample, digits or row.

        Returns:
            Multiply-adds.

        Raises:
            SpaceError: The architecture is malformed.
            DataError: The table has no such architecture or column.

        Example:
            >>> oracle = NasBenchMacroOracle.from_columns(
            ...     {"arch": ["00000000"], "canonical": ["00000000"], "flops": [7713280]})
            >>> oracle.flops("00000000")
            7713280
        """
        return self._integer("flops", architecture)
