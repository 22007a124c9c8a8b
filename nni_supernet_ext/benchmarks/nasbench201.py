"""Ground truth of all 15,625 NAS-Bench-201 architectures: accuracies, parameters, FLOPs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nni_supernet_ext.benchmarks.nasbench201_table import Column, Table, as_table, load_table
from nni_supernet_ext.errors import ConfigurationError, DataError, SpaceError

__all__ = ["NasBench201Oracle"]

# Digit order and digit values of the table's `code` column.
_EDGES = ("0_1", "0_2", "1_2", "0_3", "1_3", "2_3")
_OPERATIONS = ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")
_DIGITS = {operation: str(digit) for digit, operation in enumerate(_OPERATIONS)}
# data set -> prefix of its columns, classes of its classifier
_DATASETS = {"cifar10": ("c10", 10), "cifar100": ("c100", 100), "imagenet16-120": ("in16", 120)}
_SPLITS = ("test", "valid")
_EPOCHS = {200: "", 12: "_e12"}
# The classifier reads 64 features; the table's parameters are those of its 10-class form.
_PARAMS_PER_CLASS = 65

Architecture = Mapping[str, str] | str | int


class NasBench201Oracle:
    """Look up what NAS-Bench-201 measured for an architecture.

    An architecture is given as a sample of the search space, as an architecture string, or as its official
    index 0..15624. The official index has no closed form, so it exists only here, with the table.

    Args:
        path: Table as a csv file (may be gzipped), or the folder that holds ``nasbench201.csv.gz``. Default:
            the folder named by the environment variable ``NNI_SUPERNET_DATA``.

    Attributes:
        table: Column name -> array over all architectures in index order, read-only: ``arch`` and ``code`` as
            text, the others as numbers (accuracies in percent, parameters and FLOPs in millions, missing
            values NaN).

    Raises:
        DataError: There is no such file, or it is not such a table.

    Example:
        >>> oracle = NasBench201Oracle.from_columns({
        ...     "arch": ["|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"],
        ...     "code": ["000300"], "c10_test": [85.5],
        ... })
        >>> sample = oracle.sample(0)
        >>> sample["cell/0_3"], oracle.accuracy(sample, dataset="cifar10", split="test")
        ('conv_3x3', 85.5)

    Reference:
        Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
        ICLR 2020; Dong et al., "NATS-Bench", TPAMI 2021 (topology search space).
    """

    table: Table

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._adopt(load_table(path))

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any] | Column]) -> NasBench201Oracle:
        """Build an oracle from a table in memory, for instance one read from another file format.

        Args:
            columns: Column name -> one value per architecture, in index order; ``arch`` and ``code`` (six
                digits, text) are required, every other column only by the method that reads it.

        Returns:
            Oracle over these architectures.

        Raises:
            DataError: A required column is missing, lengths differ, or a code is malformed or repeated.

        Example:
            >>> arch = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
            >>> len(NasBench201Oracle.from_columns({"arch": [arch], "code": ["000000"]}))
            1
        """
        oracle = cls.__new__(cls)
        oracle._adopt(as_table(columns))
        return oracle

    def _adopt(self, table: Table) -> None:
        self.table = table
        self._row_of_code = {code: row for row, code in enumerate(table["code"].tolist())}
        self._row_of_arch = {arch: row for row, arch in enumerate(table["arch"].tolist())}

    def __len__(self) -> int:
        return len(self.table["arch"])

    def index(self, architecture: Architecture) -> int:
        """Return the official index of an architecture.

        Args:
            architecture: Sample, architecture string or index.

        Returns:
            Row in `table`, 0..15624 for the full benchmark.

        Raises:
            SpaceError: The architecture is malformed.
            DataError: The table has no such architecture.

        Example:
            >>> arch = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
            >>> oracle = NasBench201Oracle.from_columns({"arch": [arch], "code": ["000000"]})
            >>> oracle.index(arch)
            0
        """
        row: int | None
        if isinstance(architecture, Mapping):
            row = self._row_of_code.get(_code(architecture))
        elif isinstance(architecture, str):
            row = self._row_of_arch.get(architecture)
        else:
            row = int(architecture) if 0 <= architecture < len(self) else None
        if row is None:
            raise DataError(
                f"Argument `architecture` is expected to be one of the table's {len(self)}, but got "
                f"{architecture!r}. Compare it with `oracle.table['arch']`."
            )
        return row

    def sample(self, architecture: Architecture) -> dict[str, str]:
        """Return an architecture as a sample of the search space, for instance from its official index.

        Args:
            architecture: Sample, architecture string or index.

        Returns:
            Label ``cell/{from}_{to}`` -> operation.

        Raises:
            SpaceError: The architecture is malformed.
            DataError: The table has no such architecture.

        Example:
            >>> arch = "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
            >>> oracle = NasBench201Oracle.from_columns({"arch": [arch], "code": ["000200"]})
            >>> oracle.sample(arch)["cell/0_3"]
            'conv_1x1'
        """
        code = self.table["code"][self.index(architecture)]
        return {f"cell/{edge}": _OPERATIONS[int(digit)] for edge, digit in zip(_EDGES, code, strict=True)}

    def samples(self) -> Iterator[dict[str, str]]:
        """Iterate over all architectures as samples, in index order.

        Returns:
            Iterator over `len(self)` samples, each as `sample` returns it.

        Example:
            >>> arch = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
            >>> oracle = NasBench201Oracle.from_columns({"arch": [arch], "code": ["000000"]})
            >>> [set(sample.values()) for sample in oracle.samples()]
            [{'none'}]
        """
        return map(self.sample, range(len(self)))

    def accuracy(
        self, architecture: Architecture, dataset: str = "cifar10", split: str = "test", epochs: int = 200
    ) -> float:
        """Return the measured top-1 accuracy, the mean over the benchmark's training runs.

        Args:
            architecture: Sample, architecture string or index.
            dataset: ``cifar10``, ``cifar100`` or ``imagenet16-120``. Default: ``cifar10``.
            split: ``test``, or ``valid`` for the accuracy that a search may use. On CIFAR-10, ``valid`` comes
                from training on half of the training images and ``test`` from training on all of them.
            epochs: 200, or 12 for the benchmark's separate short training. Default: 200.

        Returns:
            Accuracy in percent.

        Raises:
            ConfigurationError: There is no such data set, split or training.
            SpaceError: The architecture is malformed.
            DataError: The table has no such architecture or column.

        Example:
            >>> arch = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
            >>> oracle = NasBench201Oracle.from_columns(
            ...     {"arch": [arch], "code": ["000000"], "c100_valid_e12": [1.0]})
            >>> oracle.accuracy(arch, dataset="cifar100", split="valid", epochs=12)
            1.0
        """
        _check_choice("split", split, _SPLITS)
        _check_choice("epochs", epochs, tuple(_EPOCHS))
        return self._value(f"{_dataset(dataset)[0]}_{split}{_EPOCHS[epochs]}", architecture)

    def params(self, architecture: Architecture, dataset: str = "cifar10") -> int:
        """Return the number of parameters of the stand-alone network, dead edges included.

        Args:
            architecture: Sample, architecture string or index.
            dataset: Data set that sets the number of classes. Default: ``cifar10``.

        Returns:
            Number of parameters.

        Raises:
            ConfigurationError: There is no such data set.
            SpaceError: The architecture is malformed.
            DataError: The table has no such architecture or column.

        Example:
            >>> arch = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
            >>> oracle = NasBench201Oracle.from_columns(
            ...     {"arch": [arch], "code": ["000000"], "params_M": [0.073306]})
            >>> oracle.params(arch)
            73306
        """
        extra_classes = _dataset(dataset)[1] - 10
        return round(self._value("params_M", architecture) * 1e6) + extra_classes * _PARAMS_PER_CLASS

    def flops(self, architecture: Architecture, dataset: str = "cifar10") -> int:
        """Return the multiply-adds of the stand-alone network for one image, dead edges included.

        Args:
            architecture: Sample, architecture string or index.
            dataset: Data set that sets the image size (16x16 for ``imagenet16-120``, else 32x32) and the
                number of classes. Default: ``cifar10``.

        Returns:
            Multiply-adds, as the benchmark counts them.

        Raises:
            ConfigurationError: There is no such data set.
            SpaceError: The architecture is malformed.
            DataError: The table has no such architecture or column.

        Example:
            >>> arch = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
            >>> oracle = NasBench201Oracle.from_columns(
            ...     {"arch": [arch], "code": ["000000"], "flops_M": [7.78305]})
            >>> oracle.flops(arch)
            7783050
        """
        prefix, classes = _dataset(dataset)
        if prefix == "in16":
            return round(self._value("flops_M_in16", architecture) * 1e6)
        return round(self._value("flops_M", architecture) * 1e6) + (classes - 10) * _PARAMS_PER_CLASS

    def iso_group(self, architecture: Architecture) -> int:
        """Return the group of architectures that compute the same function.

        Args:
            architecture: Sample, architecture string or index.

        Returns:
            Group number; the full benchmark has 6,466 groups.

        Raises:
            SpaceError: The architecture is malformed.
            DataError: The table has no such architecture or column.

        Example:
            >>> arch = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
            >>> oracle = NasBench201Oracle.from_columns(
            ...     {"arch": [arch], "code": ["000000"], "iso_group": [7]})
            >>> oracle.iso_group(arch)
            7
        """
        return int(self._value("iso_group", architecture))

    def _value(self, column: str, architecture: Architecture) -> float:
        if column not in self.table:
            raise DataError(
                f"Table is expected to have the column `{column}`, but got {list(self.table)}. "
                "Load a table that holds this measurement."
            )
        return float(self.table[column][self.index(architecture)])


def _code(sample: Mapping[str, str]) -> str:
    """Write a sample as the six digits of the table's `code` column."""
    by_edge = {str(label).rpartition("/")[2]: operation for label, operation in sample.items()}
    if len(sample) != len(_EDGES) or set(by_edge) != set(_EDGES):
        expected = [f"cell/{edge}" for edge in _EDGES]
        raise SpaceError(
            f"Argument `architecture` is expected to have the labels {expected}, but got "
            f"{[str(label) for label in sample]}. Pass a complete sample of the NAS-Bench-201 space."
        )
    unknown = [operation for operation in by_edge.values() if operation not in _DIGITS]
    if unknown:
        raise SpaceError(
            f"Argument `architecture` is expected to choose from {list(_OPERATIONS)}, but got "
            f"{unknown[0]!r}. Samples use NNI's operation names, architecture strings the benchmark's."
        )
    return "".join(_DIGITS[by_edge[edge]] for edge in _EDGES)


def _check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise ConfigurationError(
            f"Argument `{name}` is expected to be one of {list(allowed)}, but got {value!r}. "
            "The benchmark holds no other."
        )


def _dataset(name: str) -> tuple[str, int]:
    _check_choice("dataset", str(name).lower(), tuple(_DATASETS))
    return _DATASETS[name.lower()]
