"""The scripts that measure costs run and report what they promise; what they count is checked by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.scripts import load_script

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("log_levels")]


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
        "2",
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
    settings = ["--steps", "2", "--rounds", "1", "--channels", "4", "--size", "8", "--batch", "2"]
    load_script("fairness").main(["--out", str(tmp_path / "fairness.json"), *settings])
    result: dict[str, Any] = json.loads((tmp_path / "fairness.json").read_text(encoding="utf-8"))
    assert result["step"]["draws_per_step"] == 5 and result["step"]["steps"] == 2
    assert 0 < result["step"]["low"] <= result["step"]["median"] <= result["step"]["high"]
    assert result["memory"]["ratio"] == pytest.approx(1.0, abs=0.05)
    assert result["few_shot"]["parts"] == 5 and result["few_shot"]["steps"] == 2 * 5


def test_importance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["--channels", "4", "--size", "8", "--batch", "2", "--steps", "8", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["importance.py", "time", "--out", str(tmp_path / "time.json"), *settings])
    load_script("importance").main()
    summary = json.loads((tmp_path / "time.json").read_text(encoding="utf-8"))["summary"]
    assert summary["SPOS"]["own_share"] == 0.0 and summary["SPOS"]["total"] == 1.0
    assert 0.0 < summary["PA&DA"]["own_share"] < 1.0


def test_contenders_take_turns_and_stop_apart() -> None:
    """Trainings of different lengths: every step of the shorter one lies between two of the longer one."""
    lockstep = load_script("lockstep")
    order: list[str] = []

    def contender(name: str, steps: int) -> Any:
        def make(turns: Any) -> Any:
            def train() -> None:
                for step in range(steps):
                    turns.on_train_batch_start(None, None, None, step)
                    order.append(name)
                turns.on_train_end(None, None)

            return train

        return make

    seconds = lockstep.in_lockstep({"a": contender("a", 6), "b": contender("b", 2)}, steps={"a": 2})
    assert order == ["a", "a", "b", "a", "a", "b", "a", "a"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 2}
    found = lockstep.compared([2.0, 4.0, 6.0], [1.0, 4.0, 2.0])
    assert found == {"total": 12 / 7, "median": 2.0, "low": 1.0, "high": 3.0}


def test_a_failed_contender_ends_the_comparison() -> None:
    lockstep = load_script("lockstep")

    def make(turns: Any) -> Any:
        def train() -> None:
            turns.on_train_batch_start(None, None, None, 0)
            raise RuntimeError("out of paths")

        return train

    with pytest.raises(RuntimeError, match="out of paths"):
        lockstep.in_lockstep({"a": make, "b": make})
