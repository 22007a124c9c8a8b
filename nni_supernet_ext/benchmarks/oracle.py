"""What every benchmark oracle shares: architectures in any form, groups of equal networks, columns."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from nni_supernet_ext.benchmarks.tables import ENDINGS, Column, Table, TableFormat, as_table, load_table, write_csv
from nni_supernet_ext.errors import ConfigurationError, DataError, SpaceError

__all__ = ["Architecture", "BenchmarkOracle"]

Architecture = Mapping[str, Any] | str | int

_Oracle = TypeVar("_Oracle", bound="BenchmarkOracle")


class BenchmarkOracle:
    """Look up what a benchmark measured for an architecture: the base of all oracles.

    An architecture is given as a sample of the search space, as its code (one digit per choice), or as its row
    in the table. A subclass sets `format` and says in :meth:`accuracy` which column holds what.

    Args:
        path: Table as a csv file (may be gzipped), or the folder that holds it. Default: the file that comes with
            the package where there is one, else the folder named by the environment variable
            ``NNI_SUPERNET_DATA``.

    Attributes:
        table: Column name -> array over all architectures, read-only; missing numbers are NaN.

    Raises:
        DataError: There is no such file, or it is not such a table.

    Example:
        >>> class Pairs(BenchmarkOracle):
        ...     format = TableFormat('Pairs', 'pairs', labels=('first', 'second'), candidates=('skip', 'conv'))
        >>> oracle = Pairs.from_columns({'arch': ['00', '01'], 'accuracy': [50.0, 75.0]})
        >>> oracle.accuracy({'first': 'skip', 'second': 'conv'}), oracle.sample('00')
        (75.0, {'first': 'skip', 'second': 'skip'})
    """

    format: ClassVar[TableFormat]
    table: Table

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._adopt(load_table(path, self.format))

    @classmethod
    def from_columns(cls: type[_Oracle], columns: Mapping[str, Sequence[Any] | Column]) -> _Oracle:
        """Build an oracle from a table in memory.

        Args:
            columns: Column name -> one value per architecture. The text columns of `format` are required, every
                other column only by the method that reads it.

        Returns:
            Oracle over these architectures.

        Raises:
            DataError: A required column is missing, a column is no list of numbers, lengths differ, or a code is
                malformed or repeated.
        """
        oracle = cls.__new__(cls)
        oracle._adopt(as_table(columns, cls.format))
        return oracle

    def _adopt(self, table: Table) -> None:
        self.table = table
        self._row_of_code = {code: row for row, code in enumerate(table[self.format.code].tolist())}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as a csv file that this class reads.

        Args:
            path: File, gzipped where it ends in ``.gz``.

        Returns:
            The file.

        Raises:
            ConfigurationError: The name does not end in ``.csv`` or ``.csv.gz``.
        """
        file = Path(path)
        if not file.name.endswith(ENDINGS):
            raise ConfigurationError(
                f"Argument `path` is expected to end in {' or '.join(ENDINGS)}, but got {file.name}. Use such a "
                "name: tables are read by it."
            )
        write_csv(self.table, file)
        return file

    def __len__(self) -> int:
        return len(self._row_of_code)

    def index(self, architecture: Architecture) -> int:
        """Return the row of an architecture.

        Args:
            architecture: Sample, code or row.

        Returns:
            Row in `table`.

        Raises:
            SpaceError: The sample is malformed, or it is none of these.
            DataError: The table has no such architecture.
        """
        row: int | None
        if isinstance(architecture, Mapping):
            row = self._row_of_code.get(self._code(architecture))
        elif isinstance(architecture, str):
            row = self._row_of_text(architecture)
        else:
            number = _as_row(architecture)
            row = number if 0 <= number < len(self) else None
        if row is None:
            column = "arch" if "arch" in self.format.text_columns else self.format.code
            raise DataError(
                f"Argument `architecture` is expected to be one of the table's {len(self)}, but got "
                f"{architecture!r}. Compare it with `oracle.table[{column!r}]`."
            )
        return row

    def _row_of_text(self, text: str) -> int | None:
        return self._row_of_code.get(text)

    def sample(self, architecture: Architecture) -> dict[str, str]:
        """Return an architecture as a sample of the search space, for instance from its row.

        Args:
            architecture: Sample, code or row.

        Returns:
            Label -> candidate.

        Raises:
            SpaceError: The sample is malformed.
            DataError: The table has no such architecture.
        """
        code = self.table[self.format.code][self.index(architecture)]
        candidates = self.format.candidates
        return {label: candidates[int(d)] for label, d in zip(self.format.labels, code, strict=True)}

    def samples(self) -> Iterator[dict[str, str]]:
        """Iterate over all architectures as samples, in the table's order.

        Returns:
            Iterator over ``len(self)`` samples, each as :meth:`sample` returns it.
        """
        return map(self.sample, range(len(self)))

    def distinct(self) -> list[int]:
        """Return one architecture for each group of equal networks, for rankings without trivial ties.

        Returns:
            Rows in ascending order: the first of each group, and all that are in none.

        Raises:
            DataError: The table does not say which networks are equal.
        """
        _, first = np.unique(self._column(self.format.group), return_index=True, equal_nan=False)
        return sorted(first.tolist())

    def accuracy(self, architecture: Architecture) -> float:
        """Return the measured accuracy: by default what the column ``accuracy`` holds.

        Args:
            architecture: Sample, code or row.

        Returns:
            Accuracy in percent.

        Raises:
            SpaceError: The sample is malformed.
            DataError: The table has no such architecture or column.
        """
        return self._value("accuracy", architecture)

    def accuracies(
        self, architectures: Iterable[Architecture] | None = None, **measurement: Any
    ) -> NDArray[np.float64]:
        """Return the accuracies of several architectures.

        Args:
            architectures: Samples, codes or rows; default: all, in the table's order.
            **measurement: Further arguments of :meth:`accuracy`.

        Returns:
            Accuracies in percent, shape ``(n,)``.

        Raises:
            SpaceError: A sample is malformed.
            DataError: The table has no such architecture or column.
        """
        chosen = range(len(self)) if architectures is None else architectures
        return np.array([self.accuracy(one, **measurement) for one in chosen], dtype=np.float64)

    def _value(self, column: str, architecture: Architecture) -> float:
        return float(self._column(column)[self.index(architecture)])

    def _integer(self, column: str, architecture: Architecture, unit: float = 1.0) -> int:
        """Return a value that has to be there, in whole units."""
        value = self._value(column, architecture)
        if not np.isfinite(value):
            raise DataError(
                f"Column `{column}` is expected to hold a number for {architecture!r}, but got {value}. Load a "
                "table that holds this measurement."
            )
        return round(value * unit)

    def _column(self, name: str) -> Column:
        if name not in self.table:
            raise DataError(
                f"Table is expected to have the column `{name}`, but got {list(self.table)}. "
                "Load a table that holds this measurement."
            )
        return self.table[name]

    def _code(self, sample: Mapping[str, Any]) -> str:
        """Write a sample as the digits of the table's code."""
        labels, candidates = self.format.labels, self.format.candidates
        chosen = {self._label(str(label)): candidate for label, candidate in sample.items()}
        if len(sample) != len(labels) or set(chosen) != set(labels):
            raise SpaceError(
                f"Argument `architecture` is expected to have the labels {list(labels)}, but got "
                f"{[str(label) for label in sample]}. Pass a complete sample of the {self.format.name} space."
            )
        unknown = [candidate for candidate in chosen.values() if candidate not in candidates]
        if unknown:
            raise SpaceError(
                f"Argument `architecture` is expected to choose from {list(candidates)}, but got "
                f"{unknown[0]!r}. Samples use the candidates' names of the search space."
            )
        return "".join(str(candidates.index(chosen[label])) for label in labels)

    def _label(self, label: str) -> str:
        """Return the format's name of a label."""
        return label


def _as_row(architecture: Any) -> int:
    try:
        return operator.index(architecture)
    except TypeError:
        raise SpaceError(
            f"Argument `architecture` is expected to be a sample, a code or a row, but got {architecture!r}. Use a "
            "mapping of labels to candidates, a text or an integer."
        ) from None


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise unless a value is among those that the benchmark measured."""
    if isinstance(value, bool) or value not in allowed:
        raise ConfigurationError(
            f"Argument `{name}` is expected to be one of {list(allowed)}, but got {value!r}. "
            "The benchmark holds no other."
        )
