"""Finding and reading the NAS-Bench-201 table; another file format needs one more reader here."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nni_supernet_ext.errors import DataError

DATA_VARIABLE = "NNI_SUPERNET_DATA"
"""Environment variable that names the folder with the tables."""

_FILE_NAMES = ("nasbench201.csv.gz", "nasbench201.csv")
_TEXT_COLUMNS = ("arch", "code")
_REMEDY = (
    f"Pass the csv file or its folder, or name the folder in the environment variable {DATA_VARIABLE}; the "
    "measurements are published as the NATS-Bench topology file (read with `pip install nats_bench`) and as "
    "the nasbench201 database of nni.nas.benchmark."
)

Column = np.ndarray[Any, np.dtype[Any]]
Table = Mapping[str, Column]


def load_table(path: str | os.PathLike[str] | None) -> Table:
    """Read the table at a path, or in the folder of `DATA_VARIABLE`; a file is read once per process.

    Args:
        path: File, folder, or None for the environment variable's folder.

    Returns:
        Column name -> read-only array, one value per architecture in index order.

    Raises:
        DataError: There is no such file, or it is not such a table.
    """
    file = _find(path)
    return _read_once(file, file.stat().st_mtime_ns)


def as_table(columns: Mapping[str, Sequence[Any] | Column]) -> Table:
    """Check columns and make them read-only arrays.

    Args:
        columns: Column name -> one value per architecture; ``arch`` and ``code`` as text.

    Returns:
        The same columns as arrays that cannot be written to.

    Raises:
        DataError: A text column is missing, lengths differ, or a code is malformed or repeated.
    """
    missing = [name for name in _TEXT_COLUMNS if name not in columns]
    if missing:
        raise DataError(
            f"Table is expected to have the column `{missing[0]}`, but got {list(columns)}. {_REMEDY}"
        )
    table: dict[str, Column] = {
        name: np.array(values, dtype=_dtype(name)) for name, values in columns.items()
    }
    lengths = {name: len(column) for name, column in table.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"Columns are expected to have equal lengths, but got {lengths}. Load the whole table."
        )
    codes = table["code"].tolist()
    malformed = [code for code in codes if len(code) != 6 or not set(code) <= set("01234")]
    if malformed or len(set(codes)) < len(codes):
        raise DataError(
            "Column `code` is expected to hold distinct texts of six digits 0 to 4, but got "
            f"{malformed[0] if malformed else 'a repeated one'!r}. Keep leading zeros: read it as text."
        )
    for column in table.values():
        column.flags.writeable = False
    return MappingProxyType(table)


def _dtype(name: str) -> type:
    return str if name in _TEXT_COLUMNS else float


def _find(path: str | os.PathLike[str] | None) -> Path:
    """Return the table's file, looking inside where a folder is given."""
    given = path if path is not None else os.environ.get(DATA_VARIABLE)
    if given is None:
        raise DataError(f"Argument `path` is expected to be the NAS-Bench-201 table, but got None. {_REMEDY}")
    place = Path(given)
    candidates = [place / name for name in _FILE_NAMES] if place.is_dir() else [place]
    for file in candidates:
        if file.is_file():
            return file.resolve()
    raise DataError(
        f"Argument `path` is expected to lead to the NAS-Bench-201 table, but got {place}. {_REMEDY}"
    )


@lru_cache(maxsize=2)
def _read_once(file: Path, modified: int) -> Table:
    # The time of modification is part of the cache's key, so that a replaced file is read anew.
    for ending, read in _READERS.items():
        if file.name.endswith(ending):
            return as_table(read(file))
    raise DataError(
        f"Argument `path` is expected to be a file ending in {' or '.join(_READERS)}, but got "
        f"{file.name}. {_REMEDY}"
    )


def _read_csv(file: Path) -> dict[str, Sequence[Any]]:
    """Read a csv file with a header line; empty numbers become NaN."""
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt", newline="") as stream:
            header, *rows = csv.reader(stream)
        values = zip(*rows, strict=True)
        return {
            name: column if name in _TEXT_COLUMNS else [float(value or "nan") for value in column]
            for name, column in zip(header, values, strict=True)
        }
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(
            f"File {file.name} is expected to be a csv table of numbers beside {_TEXT_COLUMNS}, but got: "
            f"{error}. {_REMEDY}"
        ) from error


_READERS: dict[str, Callable[[Path], dict[str, Sequence[Any]]]] = {".csv.gz": _read_csv, ".csv": _read_csv}
