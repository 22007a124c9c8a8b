"""The sandwich measurements run and write what they promise, on made-up data."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from tests.benchmarks.scripts import load_script


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_cost(capsys):
    script = load_script("sandwich")
    script.measure_cost(argparse.Namespace(rounds=1, steps=2, batch=2, accelerator="cpu"))
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert result["time_ratio"]["four plain steps"]["total"] == 1.0
    # One backward pass after the other: the peak is the largest subnet's.
    ratios = result["memory_ratio_to_largest"]
    assert set(ratios) == {"sandwich CE", "sandwich KL", "sandwich adaptive alpha"}
    assert all(1.0 <= ratio < 1.05 for ratio in ratios.values())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_accuracy(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = {
        name: rng.integers(256, size=(n, 32, 32, 3), dtype=np.uint8) for name, n in (("train", 8), ("valid", 4))
    }
    arrays = {f"x_{name}": x for name, x in images.items()}
    arrays |= {f"y_{name}": np.arange(len(x), dtype=np.uint8) % 10 for name, x in images.items()}
    np.savez(tmp_path / "cifar10_small.npz", **arrays)
    script, out = load_script("sandwich_accuracy"), tmp_path / "rows.jsonl"
    settings = {"epochs": 1, "images": 8, "subnets": 1, "batch": 4, "seeds": 0}
    settings |= {"statistics": "1,2", "statistics-subnets": 1}
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    train = ["--out", str(out), "--data", str(tmp_path), *flags]
    script.main([*train, "--methods", "CE"])
    script.main(train)  # trains only what is missing
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["method"] for row in rows] == ["CE", "KL", "adaptive alpha"]
    assert "CE seed 0: in the results already" in capsys.readouterr().out
    smallest, largest, between = rows[0]["flops"]
    assert smallest < between < largest
    assert all(0 <= accuracy <= 1 for row in rows for accuracy in row["val_acc"])
    assert set(rows[2]["statistics"]) == {"1", "2"} and "statistics" not in rows[0]

    script.main(["--out", str(out), "--figures", str(tmp_path)])
    assert (tmp_path / "sandwich_boxes.png").stat().st_size > 0 < (tmp_path / "sandwich_draws.png").stat().st_size
    tables = capsys.readouterr().out
    percent = [f"{100 * accuracy:.1f}" for accuracy in rows[0]["val_acc"]]
    assert f"| CE | 1 | {' | '.join(percent)} |  |" in tables
    # The most batches are compared with themselves.
    assert "| 0.00 |" in next(line for line in tables.splitlines() if line.startswith("| 2 |"))


def test_nothing_to_show(tmp_path):
    script = load_script("sandwich_accuracy")
    with pytest.raises(SystemExit, match="train with --data first"):
        script.main(["--out", str(tmp_path / "none.jsonl"), "--figures", str(tmp_path)])
    with pytest.raises(SystemExit):
        script.main(["--out", str(tmp_path / "none.jsonl")])
