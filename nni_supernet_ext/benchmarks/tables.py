"""Finding and reading the table of a benchmark: a csv file with one row per architecture."""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nni_supernet_ext.errors import DataError

DATA_VARIABLE = "NNI_SUPERNET_DATA"
"""Environment variable that names the folder with the tables."""

ENDINGS = (".csv.gz", ".csv")

Column = np.ndarray[Any, np.dtype[Any]]
Table = Mapping[str, Column]


@dataclass(frozen=True)
class TableFormat:
    """Say what the table of a benchmark looks like.

    Attributes:
        name: Name of the benchmark, for messages.
        file: Name of the file inside a data folder, without its ending.
        labels: Choices of the search space, in the order of the code's digits; empty for a table without codes.
        candidates: Candidates of every choice, in the order of the digits 0, 1, ...
        code: Column with one digit per choice, as text.
        texts: Further columns of text.
        group: Column whose equal values mark architectures that are the same network.
        source: How to get the measurements officially: the end of a sentence.
        packaged: File that comes with the package and is read where no path is given.

    Example:
        >>> TableFormat('Pairs', 'pairs', ('first', 'second'), ('skip', 'conv')).code
        'arch'
    """

    name: str
    file: str
    labels: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    code: str = "arch"
    texts: tuple[str, ...] = ()
    group: str = "canonical"
    source: str = "its authors publish the measurements"
    packaged: Path | None = None

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns that every table needs, as text."""
        return (*self.texts, self.code) if self.labels else self.texts

    @property
    def remedy(self) -> str:
        """Sentence that says how to get the table."""
        return (
            f"Pass the csv file or its folder, or name the folder in the environment variable {DATA_VARIABLE}; "
            f"{self.source}."
        )


def load_table(path: str | os.PathLike[str] | None, form: TableFormat) -> Table:
    """Read the table at a path, or in the folder of `DATA_VARIABLE`; a file is read once per process.

    Args:
        path: File, folder, or None for the packaged file, or else the environment variable's folder.
        form: What the table looks like.

    Returns:
        Column name -> read-only array, one value per architecture in the file's order.

    Raises:
        DataError: There is no such file, or it is not such a table.
    """
    file = find_file(path, form)
    return _read_once(file, file.stat().st_mtime_ns, form)


def as_table(columns: Mapping[str, Sequence[Any] | Column], form: TableFormat) -> Table:
    """Check columns and make them read-only arrays.

    Args:
        columns: Column name -> one value per architecture.
        form: What the table looks like.

    Returns:
        The same columns as arrays that cannot be written to.

    Raises:
        DataError: A text column is missing, a column is no list of numbers, lengths differ, or a code is malformed
            or repeated.
    """
    missing = [name for name in form.text_columns if name not in columns]
    if missing:
        raise DataError(
            f"Table is expected to have the column `{missing[0]}`, but got {list(columns)}. {form.remedy}"
        )
    table = {name: _as_column(name, values, form) for name, values in columns.items()}
    lengths = {name: len(column) for name, column in table.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"Columns are expected to have equal lengths, but got {lengths}. Load the whole table.")
    if form.labels:
        _check_codes(table[form.code].tolist(), form)
    for column in table.values():
        column.flags.writeable = False
    return MappingProxyType(table)


def _as_column(name: str, values: Sequence[Any] | Column, form: TableFormat) -> Column:
    kind: type = str if name in form.text_columns else float
    try:
        column: Column = np.array(values, dtype=kind)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"Column `{name}` is expected to hold numbers, but got: {error}. Leave columns of other text out; "
            "missing numbers are NaN."
        ) from error
    if column.ndim != 1:
        raise DataError(
            f"Column `{name}` is expected to hold one value per architecture, but got the shape {column.shape}. "
            "Use a list, also for a single architecture."
        )
    return column


def _check_codes(codes: list[str], form: TableFormat) -> None:
    places, last = len(form.labels), len(form.candidates) - 1
    digits = {str(digit) for digit in range(last + 1)}
    malformed = [code for code in codes if len(code) != places or not set(code) <= digits]
    if malformed or len(set(codes)) < len(codes):
        raise DataError(
            f"Column `{form.code}` is expected to hold distinct texts of {places} digits 0 to {last}, but got "
            f"{malformed[0] if malformed else 'a repeated one'!r}. Keep leading zeros: read it as text."
        )


def find_file(path: str | os.PathLike[str] | None, form: TableFormat) -> Path:
    """Return the table's file, looking inside where a folder is given.

    Args:
        path: File, folder, or None.
        form: What the table looks like.

    Returns:
        An existing file.

    Raises:
        DataError: There is no such file.
    """
    given = path if path is not None else form.packaged or os.environ.get(DATA_VARIABLE)
    if given is None:
        raise DataError(f"Argument `path` is expected to be the {form.name} table, but got None. {form.remedy}")
    place = Path(given)
    candidates = [place / f"{form.file}{ending}" for ending in ENDINGS] if place.is_dir() else [place]
    for file in candidates:
        if file.is_file():
            return file.resolve()
    raise DataError(f"Argument `path` is expected to lead to the {form.name} table, but got {place}. {form.remedy}")


@lru_cache(maxsize=8)
def _read_once(file: Path, modified: int, form: TableFormat) -> Table:
    # The time of modification is part of the cache's key, so that a replaced file is read anew.
    if not file.name.endswith(ENDINGS):
        raise DataError(
            f"Argument `path` is expected to be a file ending in {' or '.join(ENDINGS)}, but got "
            f"{file.name}. {form.remedy}"
        )
    return as_table(read_csv(file, form), form)


def read_csv(file: Path, form: TableFormat) -> dict[str, Sequence[Any]]:
    """Read a csv file with a header line, in UTF-8; empty numbers become NaN, blank lines do not count.

    Args:
        file: The file, gzipped where its name says so.
        form: Which columns are text.

    Returns:
        Column name -> values.

    Raises:
        DataError: The file is no such table.
    """
    try:
        # Spreadsheets write a mark before the text, and editors leave blank lines at its end.
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8-sig", newline="") as stream:
            header, *rows = filter(None, csv.reader(stream))
        if len(set(header)) < len(header):
            raise ValueError(f"a name of a column twice among {header}")
        if not rows:
            raise ValueError(f"no row below {header}")
        values = zip(*rows, strict=True)
        return {
            name: column if name in form.text_columns else [float(value or "nan") for value in column]
            for name, column in zip(header, values, strict=True)
        }
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error, csv.Error) as error:
        raise DataError(
            f"File {file.name} is expected to be a csv table of numbers beside {form.text_columns}, but got: "
            f"{error}. {form.remedy}"
        ) from error


def write_csv(table: Table, file: Path) -> None:
    """Write a table as a csv file that :func:`read_csv` reads back exactly.

    Args:
        table: Column name -> array.
        file: Where to write, gzipped where its name says so.
    """
    columns = [
        ["" if value != value else repr(value) if isinstance(value, float) else value for value in column.tolist()]
        for column in table.values()
    ]
    with (gzip.open if file.suffix == ".gz" else open)(file, "wt", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(table)
        writer.writerows(zip(*columns, strict=True))
