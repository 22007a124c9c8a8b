"""The scripts that measure costs run and report what they promise; what they count is checked by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.scripts import load_script

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_kept_bytes_sees_two_graphs_alive_at_once() -> None:
    counter = load_script("kept_bytes").KeptBytes
    x = torch.randn(100, requires_grad=True)
    for keep, expected in ((False, 400), (True, 800)):
        with counter() as kept:
            first = x.exp()
            if not keep:
                first.sum().backward()
                del first
            second = x.exp()
        assert kept.peak == expected
        second.sum().backward()


def test_splitting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [
        "--space",
        "nasbench201_convolutions",
        "--rounds",
        "1",
        "--steps",
        "1",
        "--batch",
        "2",
        "--cells",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["splitting.py", *settings])
    load_script("splitting").main()
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert set(result["ms"]) == {
        f"{kind} {half} half" for kind in ("shared", "split") for half in ("first", "second")
    }
    # The copies are weights too, and nothing else differs.
    assert 1.0 < result["memory_after_to_shared"] < 2.0
    assert min(result["ms"].values()) > 0


def test_fairness(tmp_path: Path) -> None:
    settings = ["--steps", "1", "--rounds", "1", "--channels", "4", "--size", "8", "--batch", "2"]
    load_script("fairness").main(["--out", str(tmp_path / "fairness.json"), *settings])
    result: dict[str, Any] = json.loads((tmp_path / "fairness.json").read_text(encoding="utf-8"))
    assert result["step"]["rounds"][0]["draws_per_step"] == 5
    assert result["memory"]["ratio"] == pytest.approx(1.0, abs=0.05)
    assert result["few_shot"]["rounds"][0]["parts"] == 5


def test_importance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["--channels", "4", "--size", "8", "--batch", "2", "--steps", "8", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["importance.py", "time", "--out", str(tmp_path / "time.json"), *settings])
    load_script("importance").main()
    summary = json.loads((tmp_path / "time.json").read_text(encoding="utf-8"))["summary"]
    assert summary["SPOS"]["own_share"] == 0.0 and summary["SPOS"]["processor_ratio"] == 1.0
    assert 0.0 < summary["PA&DA"]["own_share"] < 1.0
