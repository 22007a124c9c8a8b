"""Files of results, work folders and the memory of a run."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_supernet_ext.errors import DataError


def run_line(method: str = "spos", seed: int = 0, tau: float | None = 0.5) -> dict[str, Any]:
    return {"protocol": {"name": "p"}, "method": method, "seed": seed, "tau": tau, "predicted": [1.0, 2.0]}


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("\n\n".join(json.dumps(line) for line in lines) + "\n\n")
    return path


def test_blank_lines_and_repeated_runs_do_not_count(scripts: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "out.jsonl", run_line(seed=1), run_line(), run_line(tau=0.9))
    assert scripts["summarize"].read_runs(path) == {"p": {"spos": [run_line(), run_line(seed=1)]}}


def test_a_broken_line_is_named(scripts: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "out.jsonl", run_line())
    path.write_text(path.read_text() + '{"protocol": {"na')
    with pytest.raises(DataError, match="Line 3 of"):
        scripts["summarize"].read_runs(path)


def test_numbers_that_are_none_are_null(scripts: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    scripts["results"].append_line(path, {"tau": float("nan"), "predicted": [1.0, float("inf")]})
    assert path.read_text() == '{"tau": null, "predicted": [1.0, null]}\n'
    path.write_text(json.dumps(run_line(tau=float("nan"))) + "\n")
    assert scripts["results"].read_lines(path) == [run_line(tau=None)]


def test_a_line_is_added_on_its_own(scripts: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(run_line()))  # without its end, as an editor may leave it
    scripts["results"].append_line(path, run_line(seed=1))
    scripts["results"].append_line(path, run_line(seed=2))
    assert scripts["results"].read_lines(path) == [run_line(), run_line(seed=1), run_line(seed=2)]


@pytest.mark.parametrize("text", ['{"a": 1}', "[1]", "3"])
def test_what_is_no_result_is_named(scripts: Any, tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "out.jsonl", run_line())
    path.write_text(path.read_text() + text)
    with pytest.raises(DataError, match=r"Line 3 of .*'method', 'protocol', 'seed'"):
        scripts["results"].read_lines(path)
    for place in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(DataError, match=r"Name one that `run.py` wrote"):
            scripts["results"].read_lines(place)


def test_a_run_that_predicted_nothing_has_no_interval(scripts: Any) -> None:
    lost = {**run_line(seed=1, tau=None), "predicted": [None, 2.0, 3.0]}
    found = {**run_line(), "predicted": [1.0, 2.0, 3.0]}
    titles, _, row = scripts["summarize"].table({"spos": [lost]}, actual=[1.0, 2.0, 3.0]).splitlines()
    assert dict(zip(titles.split(" | "), row.split(" | "), strict=True))["95 % of mean"] == ""
    interval = scripts["summarize"].tau_interval
    assert interval([found, lost], [1.0, 2.0, 3.0]) == interval([found], [1.0, 2.0, 3.0])


def test_a_run_without_a_tau_comes_last_in_the_table(scripts: Any) -> None:
    methods = {"constant": [run_line("constant", tau=None)], "spos": [run_line()]}
    rows = scripts["summarize"].table(methods).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| spos", "| constant"]


def test_the_table_has_pearson_regret_and_the_subset(scripts: Any) -> None:
    line = {**run_line(), "pearson": 0.25, "regret": 1.5, "tau_327": 0.75}
    titles, _, row = scripts["summarize"].table({"spos": [line]}).splitlines()
    cells = dict(zip(titles.split(" | "), row.split(" | "), strict=True))
    assert (cells["Pearson"], cells["regret"], cells["tau on 327"]) == ("0.250", "1.500", "0.750")


def test_any_method_can_be_the_reference(scripts: Any, tmp_path: Path, capsys: Any) -> None:
    protocol = {"name": "small", "benchmark": "digit_cells"}
    measured = (("spos", 0.25), ("fairnas", 0.5), ("fairnas+calr", 0.75))
    lines = [{**run_line(name, tau=tau), "protocol": protocol, "indices": [0, 1]} for name, tau in measured]
    lines = [{**line, "predicted_loss": [1.0, 2.0]} for line in lines]
    path = write(tmp_path / "out.jsonl", *lines)
    command = [str(path), "--methods", "fairnas,fairnas+calr", "--reference", "fairnas", "--columns", "tau"]
    summarize = scripts["summarize"]
    summarize.main(command)
    _, _, titles, _, *rows = capsys.readouterr().out.splitlines()
    assert titles.endswith("| tau less fairnas's (seeds better) |")
    assert len([row for row in rows if row]) == 2, "those asked for"
    assert rows[0].startswith("| fairnas+calr | 1 | 0.750 |") and rows[0].endswith("| +0.250 (1 of 1) |")
    assert rows[1].startswith("| fairnas | 1 | 0.500 |") and rows[1].endswith("|  |")
    summarize.main([str(path), "--methods", "fairnas+calr", "--reference", "spos", "--columns", "tau"])
    row = capsys.readouterr().out.splitlines()[4]
    assert row.endswith("| +0.500 (1 of 1) |"), "also with one that is not shown"
    for wrong in (["--reference", "none"], ["--methods", "spos,none"]):
        with pytest.raises(SystemExit):
            summarize.main([*command[:1], *wrong])
        assert "got none." in capsys.readouterr().err


def test_unknown_columns_are_refused(scripts: Any, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        scripts["summarize"].main([str(write(tmp_path / "out.jsonl", run_line())), "--columns", "tau,nonsense"])
    assert "got nonsense" in capsys.readouterr().err


def test_replacing_results_leaves_the_old_ones_when_it_fails(scripts: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "out.jsonl", run_line())
    before = path.read_text()
    with pytest.raises(TypeError):
        scripts["results"].replace_lines(path, [run_line(), {"tau": object()}])
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]
    scripts["results"].replace_lines(path, [run_line(tau=0.25)])
    assert scripts["results"].read_lines(path) == [run_line(tau=0.25)]


def test_older_results_count_as_done(scripts: Any, tmp_path: Path) -> None:
    small = scripts["protocols"].PROTOCOLS["small"]
    older = {key: value for key, value in small.as_dict().items() if key not in ("precision", "whole_train_set")}
    path = write(tmp_path / "out.jsonl", {**run_line(), "protocol": older})
    assert scripts["results"].holds(path, small, "spos", 0)
    assert not scripts["results"].holds(path, small, "spos", 1)


def test_one_process_at_a_time_works_in_a_folder(scripts: Any, tmp_path: Path) -> None:
    held, order = scripts["folders"].held, []

    def second() -> None:
        with held(tmp_path / "run", patience=0.01):
            order.append("second")

    with held(tmp_path / "run"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(timeout=20)
    assert order == ["first", "second"]


def test_a_folder_is_kept_for_its_protocol_and_emptied_for_another(scripts: Any, tmp_path: Path) -> None:
    small, make = scripts["protocols"].PROTOCOLS["small"], scripts["folders"].make_folder
    folder = tmp_path / "run"
    make(folder, small)
    (folder / "checkpoint").touch()
    older = {key: value for key, value in small.as_dict().items() if key != "precision"}
    (folder / "protocol.json").write_text(json.dumps(older))
    make(folder, small)
    assert (folder / "checkpoint").exists()
    make(folder, scripts["protocols"].PROTOCOLS["dynas"])
    assert not (folder / "checkpoint").exists()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak of a span")
def test_the_peak_of_memory_is_of_one_run(scripts: Any) -> None:
    first = scripts["memory"].PeakMemory("cpu")
    np.ones(50_000_000).sum()  # 400 MB
    large = first.found()["peak_memory_mb"]
    small = scripts["memory"].PeakMemory("cpu").found()["peak_memory_mb"]
    assert large - small > 350


def diagnosis(stages: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "protocol": "small", "method": "spos", "seed": 0, "stages": stages, "variance": [1.0],
        "complexity_convergence": 0.5,
    }  # fmt: skip


def test_diagnostics_are_tabled_by_the_names_of_their_stages(scripts: Any) -> None:
    def stage(cosine: float, **name: str) -> dict[str, Any]:
        return {**name, "epoch": 0, "similarity": {"1": cosine}, "deviation": [1.0, 1.0, 1.0]}

    summary = scripts["diagnosis_tables"].summary
    older = summary([diagnosis([stage(0.1), stage(0.2), stage(0.3)])])
    named = summary([diagnosis([stage(0.3, stage="last"), stage(0.1, stage="first"), stage(0.2, stage="middle")])])
    assert older == named
    assert [row.split(" | ")[1] for row in named.splitlines() if row.startswith("| spos")][:3] == [
        "0.100", "0.200", "0.300"
    ]  # fmt: skip
    with pytest.raises(DataError, match="measure it again"):
        summary([diagnosis([]), diagnosis([stage(0.1)])])
