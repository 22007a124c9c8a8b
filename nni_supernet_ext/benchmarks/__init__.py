"""Benchmark oracles: what was measured for a sample of a search space, without any training."""

from __future__ import annotations

from nni_supernet_ext.benchmarks.digit_cells import DigitCellsOracle
from nni_supernet_ext.benchmarks.digit_images import DigitImages, digit_images, with_noise
from nni_supernet_ext.benchmarks.nasbench201 import NasBench201Oracle
from nni_supernet_ext.benchmarks.nasbench_macro import NasBenchMacroOracle
from nni_supernet_ext.benchmarks.oracle import BenchmarkOracle
from nni_supernet_ext.benchmarks.tables import TableFormat

__all__ = [
    "BenchmarkOracle",
    "DigitCellsOracle",
    "DigitImages",
    "NasBench201Oracle",
    "NasBenchMacroOracle",
    "TableFormat",
    "digit_images",
    "with_noise",
]
