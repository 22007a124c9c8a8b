"""NAS-Bench-201 from other files than the csv table: NNI's database and the official NATS-Bench files."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nni_supernet_ext.benchmarks.nasbench201_codes import arch_of, code_of_arch, code_of_edges, costs, unique_form
from nni_supernet_ext.errors import DataError

_SAVE = "Or pass the csv table to `NasBench201Oracle(path)`."
_EPOCHS = {"200": "", "12": "_e12"}
# column -> data set of the training, and the accuracy that belongs there, in NNI's and in NATS-Bench's words
_MEASURED = {
    "c10_test": ("cifar10", "ori_test_acc", "test-accuracy"),
    "c10_valid": ("cifar10-valid", "valid_acc", "valid-accuracy"),
    "c100_test": ("cifar100", "test_acc", "test-accuracy"),
    "c100_valid": ("cifar100", "valid_acc", "valid-accuracy"),
    "in16_test": ("imagenet16-120", "test_acc", "test-accuracy"),
    "in16_valid": ("imagenet16-120", "valid_acc", "valid-accuracy"),
}
# what the package, which checks little, and unpickling raise for other files
_UNREADABLE = (
    *(ValueError, LookupError, TypeError, AttributeError, ImportError, AssertionError),
    *(OSError, EOFError, pickle.UnpicklingError),
)
_NATS_NAME = {"imagenet16-120": "ImageNet16-120"}

Columns = dict[str, list[Any]]


def columns_from_nni(path: str | os.PathLike[str] | None) -> Columns:
    """Read NNI's benchmark database; see ``NasBench201Oracle.from_nni``."""
    order: dict[str, int] = {}
    values: dict[str, dict[str, float]] = {}
    with _nni_query(path) as query:
        for epochs, suffix in _EPOCHS.items():
            for dataset in sorted({dataset for dataset, _, _ in _MEASURED.values()}):
                for trial in query(None, int(epochs), dataset, reduction="mean"):
                    code = code_of_edges(trial["config"]["arch"])
                    # Within a data set, the database's rows are in official order.
                    order.setdefault(code, trial["config"]["id"])
                    row = values.setdefault(code, {})
                    for column, (trained_on, field, _) in _MEASURED.items():
                        if trained_on == dataset:
                            row[column + suffix] = trial[field]
    if not values:
        raise DataError(
            "The nasbench201 database is expected to hold trained architectures, but got none. Remove the file "
            f'and get it again with `nni.nas.benchmark.download_benchmark("nasbench201")`. {_SAVE}'
        )
    codes = sorted(values, key=order.__getitem__)
    return _assembled(codes, [values[code] for code in codes])


@contextmanager
def _nni_query(path: str | os.PathLike[str] | None) -> Iterator[Any]:
    """Point NNI's query at a file; it remembers one database for the whole process."""
    try:
        from nni.nas.benchmark.constants import DATABASE_DIR, DB_URLS
        from nni.nas.benchmark.nasbench201 import query_nb201_trial_stats
        from nni.nas.benchmark.nasbench201.schema import proxy
        from peewee import DatabaseError
        from playhouse.sqlite_ext import SqliteExtDatabase
    except ImportError as error:
        raise DataError(
            f"The package peewee (below 4) is expected to be installed for NNI's database, but got: {error}. "
            f"`pip install 'peewee<4'`. {_SAVE}"
        ) from error
    file = Path(path) if path is not None else Path(DATABASE_DIR, Path(DB_URLS["nasbench201"]).name)
    if not file.is_file():
        raise DataError(
            f"Argument `path` is expected to be NNI's nasbench201 database, but got {file}, which is no file. Get "
            f'it with `nni.nas.benchmark.download_benchmark("nasbench201")`. {_SAVE}'
        )
    previous, database = proxy.obj, SqliteExtDatabase(str(file), autoconnect=True)
    proxy.initialize(database)
    try:
        yield query_nb201_trial_stats
    except DatabaseError as error:
        raise DataError(
            f"Argument `path` is expected to be NNI's nasbench201 database, but got {file}, which cannot be read: "
            f"{error}. Remove it and get it again with "
            f'`nni.nas.benchmark.download_benchmark("nasbench201")`. {_SAVE}'
        ) from error
    finally:
        database.close()
        proxy.obj = previous


def columns_from_nats(path: Any) -> Columns:
    """Read NATS-Bench's topology files; see ``NasBench201Oracle.from_nats``."""
    try:
        import nats_bench
    except ImportError as error:
        raise DataError(
            f"The package nats_bench is expected to be installed, but got: {error}. `pip install nats_bench`, and "
            f"get NATS-tss-v1_0-3ffb9-simple as its authors describe (D-X-Y/NATS-Bench). {_SAVE}"
        ) from error
    given = path if isinstance(path, dict) else str(path)
    fast = isinstance(given, str) and Path(given).is_dir()
    try:
        api = nats_bench.create(given, "tss", fast_mode=fast, verbose=False)
        codes = [code_of_arch(api.arch(index)) for index in range(len(api))]
        return _assembled(codes, [_nats_row(api, index) for index in range(len(codes))])
    except DataError:
        raise
    except _UNREADABLE as error:
        # The package itself asserts that each architecture's file is there.
        raise DataError(
            f"Argument `path` is expected to be the NATS-Bench topology files, but got: {error}. Get "
            f"NATS-tss-v1_0-3ffb9-simple as its authors describe (D-X-Y/NATS-Bench). {_SAVE}"
        ) from error


def _nats_row(api: Any, index: int) -> dict[str, float]:
    row = {}
    for epochs, suffix in _EPOCHS.items():
        for dataset in {dataset for dataset, _, _ in _MEASURED.values()}:
            name = _NATS_NAME.get(dataset, dataset)
            info = api.get_more_info(index, name, hp=epochs, is_random=False)
            for column, (trained_on, _, field) in _MEASURED.items():
                if trained_on == dataset:
                    row[column + suffix] = info[field]
    if api.fast_mode:
        # The package keeps every architecture that it read: together several gigabytes.
        api.arch2infos_dict.pop(index, None)
        api.evaluated_indexes.discard(index)
    return row


def _assembled(codes: list[str], rows: Sequence[Mapping[str, float]]) -> Columns:
    """Join codes and accuracies with what follows from the codes."""
    columns: Columns = {"arch": [arch_of(code) for code in codes], "code": codes}
    groups: dict[str, int] = {}
    columns["iso_group"] = [groups.setdefault(unique_form(code), len(groups)) for code in codes]
    for name, per_code in zip(
        ("params_M", "flops_M", "flops_M_in16"), zip(*map(costs, codes), strict=True), strict=True
    ):
        columns[name] = list(per_code)
    for suffix in _EPOCHS.values():
        for column in _MEASURED:
            columns[column + suffix] = [row.get(column + suffix, float("nan")) for row in rows]
    return columns
