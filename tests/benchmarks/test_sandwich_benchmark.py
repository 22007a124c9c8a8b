"""The sandwich measurements run and write what they promise, on made-up data."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from tests.benchmarks.scripts import load_script


@pytest.fixture(scope="module")
def script():
    return load_script("sandwich")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_cost(script, capsys):
    script.measure_cost(argparse.Namespace(command="cost", rounds=1, steps=2, batch=2, accelerator="cpu"))
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert result["time_ratio"]["four plain steps"]["total"] == 1.0
    # One backward pass after the other: the peak is the largest subnet's.
    ratios = result["memory_ratio_to_largest"]
    assert set(ratios) == {"sandwich CE", "sandwich KL", "sandwich adaptive alpha"}
    assert all(1.0 <= ratio < 1.05 for ratio in ratios.values())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_accuracy(script, tmp_path):
    rng = np.random.default_rng(0)
    images = {
        name: rng.integers(256, size=(n, 32, 32, 3), dtype=np.uint8) for name, n in (("train", 8), ("valid", 4))
    }
    arrays = {f"x_{name}": x for name, x in images.items()}
    arrays |= {f"y_{name}": np.arange(len(x), dtype=np.uint8) % 10 for name, x in images.items()}
    np.savez(tmp_path / "cifar10_small.npz", **arrays)
    settings = {"epochs": 1, "images": 8, "subnets": 1, "batch": 4, "accelerator": "cpu", "seeds": [0]}
    settings |= {"statistics": [1, 2], "statistics_subnets": 1}
    script.measure_accuracy(argparse.Namespace(data=tmp_path, out=tmp_path / "out", **settings))
    rows = [json.loads(line) for line in (tmp_path / "out" / "subnets.jsonl").read_text().splitlines()]
    assert [row["method"] for row in rows] == ["CE"] * 3 + ["KL"] * 3 + ["adaptive alpha"] * 3
    assert rows[0]["flops"] < rows[2]["flops"] < rows[1]["flops"]
    assert all(0 <= row["val_acc"] <= 1 for row in rows)
    assert (tmp_path / "out" / "boxes.png").stat().st_size > 0 < (tmp_path / "out" / "draws.png").stat().st_size
    statistics = json.loads((tmp_path / "out" / "statistics.jsonl").read_text())
    assert statistics["mean_distance"]["2"] == 0.0 and set(statistics["tau"]) == {"1", "2"}
