"""The scripts of the ranking benchmark, and made-up data for them."""

from __future__ import annotations

import csv
import gzip
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_supernet_ext.spaces import NASBENCH201_OPERATIONS, sample_to_arch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "ranking"
N_TABLE, N_EVALUATED = 30, 12
EDGES = ("0_1", "0_2", "1_2", "0_3", "1_3", "2_3")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, Any]]:
    """Import the scripts as they import each other: by their bare names."""
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    for name in names:  # the examples have modules of the same names
        sys.modules.pop(name, None)
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a table of random accuracies and images of noise."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    codes = sorted({"".join(map(str, rng.integers(5, size=6))) for _ in range(2 * N_TABLE)})[:N_TABLE]
    with gzip.open(folder / "nasbench201.csv.gz", "wt", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["index", "arch", "code", "iso_group", "c10_test"])
        for index, code in enumerate(codes):
            sample = {edge: NASBENCH201_OPERATIONS[int(digit)] for edge, digit in zip(EDGES, code, strict=True)}
            accuracy = rng.uniform(10, 95)
            writer.writerow([index, sample_to_arch(sample), code, index // 2, accuracy])
    sizes = {"train": 64, "valid": 16, "holdout": 16}
    np.savez(
        folder / "cifar10_small.npz",
        **{f"x_{part}": rng.integers(256, size=(n, 32, 32, 3), dtype=np.uint8) for part, n in sizes.items()},
        **{f"y_{part}": rng.integers(10, size=n, dtype=np.uint8) for part, n in sizes.items()},
    )
    return folder


@pytest.fixture()
def tiny(scripts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Offer a protocol of two epochs of two steps."""
    protocol = scripts["protocols"].Protocol(
        name="tiny",
        channels=2,
        cells=1,
        image_size=8,
        train_images=64,
        batch_size=32,
        epochs=2,
        learning_rate=0.1,
        evaluation_images=32,
        evaluation_batch=16,
        architectures=N_EVALUATED,
    )
    monkeypatch.setitem(scripts["protocols"].PROTOCOLS, "tiny", protocol)
    return protocol
