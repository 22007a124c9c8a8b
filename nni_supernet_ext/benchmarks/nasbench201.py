"""Ground truth of all 15,625 NAS-Bench-201 architectures: accuracies, parameters, FLOPs, latencies."""

from __future__ import annotations

import os
from typing import Any

from nni_supernet_ext.benchmarks import nasbench201_hardware as hardware
from nni_supernet_ext.benchmarks.nasbench201_codes import arch_of
from nni_supernet_ext.benchmarks.nasbench201_sources import columns_from_nats, columns_from_nni
from nni_supernet_ext.benchmarks.oracle import Architecture, BenchmarkOracle, check_choice
from nni_supernet_ext.benchmarks.tables import Table, TableFormat
from nni_supernet_ext.errors import DataError

__all__ = ["NasBench201Oracle"]

_EDGES = ("0_1", "0_2", "1_2", "0_3", "1_3", "2_3")
# data set -> prefix of its columns, classes of its classifier
_DATASETS = {"cifar10": ("c10", 10), "cifar100": ("c100", 100), "imagenet16-120": ("in16", 120)}
_SPLITS = ("test", "valid")
_EPOCHS = {200: "", 12: "_e12"}
# The classifier reads 64 features; the table's parameters are those of its 10-class form.
_PARAMS_PER_CLASS = 65
_ARCHITECTURES = 15_625


class NasBench201Oracle(BenchmarkOracle):
    """Look up what NAS-Bench-201 measured for an architecture.

    An architecture is given as a sample of the search space, as an architecture string, or as its official
    index 0..15624. The official index has no closed form, so it exists only here, with the table.

    Args:
        path: Table as a csv file (may be gzipped), or the folder that holds ``nasbench201.csv.gz``. Default:
            the folder named by the environment variable ``NNI_SUPERNET_DATA``. Other sources:
            :meth:`from_nni` and :meth:`from_nats`, whose result :meth:`save` writes as such a file.
        hardware_path: Table of latencies, or the folder that holds ``nasbench201_hw.csv.gz``; read at the first
            call of :meth:`latency`. Default: where ``path`` leads.

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
        ICLR 2020; Dong et al., "NATS-Bench", TPAMI 2021 (topology search space); latencies: Li et al.,
        "HW-NAS-Bench: Hardware-Aware Neural Architecture Search Benchmark", ICLR 2021.
    """

    format = TableFormat(
        name="NAS-Bench-201",
        file="nasbench201",
        labels=tuple(f"cell/{edge}" for edge in _EDGES),
        candidates=("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3"),
        code="code",
        texts=("arch",),
        group="iso_group",
        source=(
            "the measurements are published as the NATS-Bench topology file (read with `pip install nats_bench` "
            "and `NasBench201Oracle.from_nats`) and as the nasbench201 database of nni.nas.benchmark (read with "
            "`NasBench201Oracle.from_nni`)"
        ),
    )

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        hardware_path: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(path)
        self._hardware_path = hardware.beside(path) if hardware_path is None else hardware_path

    @classmethod
    def from_nni(cls, path: str | os.PathLike[str] | None = None) -> NasBench201Oracle:
        """Read the benchmark database of ``nni.nas.benchmark``, once and whole.

        The database knows neither duplicates nor reliable parameters, so the groups of isomorphic cells and the
        costs are computed from the architectures, as the benchmark counts them. It holds NAS-Bench-201 v1.1,
        whose means are over fewer runs than those of NATS-Bench for some architectures.

        Args:
            path: The sqlite file. Default: where NNI keeps it; nothing is downloaded.

        Returns:
            Oracle over the architectures in the database, in official order.

        Raises:
            DataError: The file is absent or empty, or the package ``peewee`` (below 4) is.

        Example:
            >>> oracle = NasBench201Oracle.from_nni('nasbench201.db')  # doctest: +SKIP
            >>> oracle.save('nasbench201.csv.gz')  # doctest: +SKIP
        """
        return cls.from_columns(columns_from_nni(path))

    @classmethod
    def from_nats(cls, path: Any) -> NasBench201Oracle:
        """Read the official NATS-Bench topology files with the package ``nats_bench``, once and whole.

        Args:
            path: Folder ``NATS-tss-v1_0-3ffb9-simple``, the pickle file of the same name, or what the latter
                holds.

        Returns:
            Oracle over the benchmark's architectures, in official order; groups of isomorphic cells and costs as
            in :meth:`from_nni`. Save it: the files take long to read.

        Raises:
            DataError: The package ``nats_bench`` is absent, or the files cannot be read.

        Example:
            >>> oracle = NasBench201Oracle.from_nats('NATS-tss-v1_0-3ffb9-simple')  # doctest: +SKIP
            >>> oracle.save('nasbench201.csv.gz')  # doctest: +SKIP

        Deviations:
            Tested with the package's own classes on made-up results, not on the official files.
        """
        return cls.from_columns(columns_from_nats(path))

    def _adopt(self, table: Table) -> None:
        super()._adopt(table)
        self._hardware_path = None
        self._row_of_arch = {arch: row for row, arch in enumerate(table["arch"].tolist())}
        for arch, code in zip(table["arch"].tolist(), table["code"].tolist(), strict=True):
            if arch != arch_of(code):
                raise DataError(
                    f"Columns `arch` and `code` are expected to name the same architectures, but got {arch!r} and "
                    f"{code!r} ({arch_of(code)!r}). Load a table whose rows were not mixed up."
                )

    def _row_of_text(self, text: str) -> int | None:
        return self._row_of_arch.get(text, self._row_of_code.get(text))

    def _label(self, label: str) -> str:
        return f"cell/{label.rpartition('/')[2]}"

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
        check_choice("split", split, _SPLITS)
        check_choice("epochs", epochs, tuple(_EPOCHS))
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
        return self._integer("params_M", architecture, 1e6) + extra_classes * _PARAMS_PER_CLASS

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
            return self._integer("flops_M_in16", architecture, 1e6)
        return self._integer("flops_M", architecture, 1e6) + (classes - 10) * _PARAMS_PER_CLASS

    def latency(self, architecture: Architecture, device: str, dataset: str = "cifar10") -> float:
        """Return the latency that HW-NAS-Bench (or HELP) measured or estimated on a device.

        Args:
            architecture: Sample, architecture string or index.
            device: ``edgegpu``, ``raspi4``, ``edgetpu``, ``pixel3``, ``eyeriss`` or ``fpga``; or one of HELP's
                settings ``help_<device>``, which know only the default data set.
            dataset: Data set that sets image size and classes. Default: ``cifar10``.

        Returns:
            Milliseconds.

        Raises:
            ConfigurationError: There is no such device or data set.
            SpaceError: The architecture is malformed.
            DataError: The table of latencies or the architecture is absent, the device cannot run it, or a part of
                the benchmark comes without official indices.

        Example:
            >>> NasBench201Oracle().latency(0, 'raspi4')  # doctest: +SKIP
            10.482
        """
        row = self.index(architecture)
        if "index" not in self.table and len(self) < _ARCHITECTURES:
            raise DataError(
                f"Table is expected to have the column `index` where it does not hold all {_ARCHITECTURES} "
                f"architectures, but got {len(self)} rows without it. Add the official indices: latencies are "
                "found by them."
            )
        official = self._integer("index", row) if "index" in self.table else row
        return hardware.latency(self._hardware_path, official, device, _dataset(dataset)[0])

    def iso_group(self, architecture: Architecture) -> int:
        """Return the benchmark's group of isomorphic cells.

        The strings by which its authors compare cells cannot tell a convolution that is used twice from two of the
        same input, so the members of some groups differ in their parameters.

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
        return self._integer("iso_group", architecture)


def _dataset(name: str) -> tuple[str, int]:
    check_choice("dataset", str(name).lower(), tuple(_DATASETS))
    return _DATASETS[name.lower()]
