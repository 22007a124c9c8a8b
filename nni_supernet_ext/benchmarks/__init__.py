"""Benchmark oracles: what was measured for a sample of a search space, without any training."""

from __future__ import annotations

from nni_supernet_ext.benchmarks.nasbench201 import NasBench201Oracle

__all__ = ["NasBench201Oracle"]
