"""The ranking command refuses what it cannot do before it runs, and its processes do not multiply or outlive it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nni_supernet_ext.core import SupernetCallback
from nni_supernet_ext.errors import ConfigurationError

from .conftest import FOLDER

COMMAND = ["--protocol", "small", "--methods", "params", "--out", "none.jsonl"]


def ground(scripts: Any) -> Any:
    return scripts["grounds"].GROUNDS["digit_cells"]


def small(scripts: Any, **changes: Any) -> Any:
    return dataclasses.replace(scripts["protocols"].PROTOCOLS["small"], **changes)


@pytest.mark.parametrize("jobs", [["--jobs=2"], ["--jobs", "2"]])
def test_a_process_of_several_starts_no_more(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, jobs: list[str]
) -> None:
    started: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str]) -> None:
            started.append(command[2:])

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(scripts["jobs"].subprocess, "Popen", Process)
    scripts["run"].main([*COMMAND, *jobs])
    options = [scripts["options"].parsed(arguments, None) for arguments in started]
    assert [(option.jobs, option.part) for option in options] == [(1, (0, 2)), (1, (1, 2))]
    assert all(option.parent == os.getpid() for option in options)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--job", "2"], "--job"),
        (["--jobs", "2", "--part", "0/2"], "`jobs` and `part`"),
        (["--jobs", "0"], "--jobs"),
        (["--part", "2/2"], "--part"),
        (["--seeds", "zero"], "`seeds`"),
        (["--seeds", "0,0"], "`seeds`"),
        (["--accelerator", "gpus"], "--accelerator"),
        (["--methods", "params,params"], "each once"),
        (["--methods", "params+spos"], "'params' in 'params+spos'"),
        (["--methods", "nonsense"], "'nonsense'"),
        (["--methods", "long"], "can be trained"),
        (["--methods", "calr+long"], "Remove `long`"),
        (["--methods", "ms+ms"], "each part once"),
        (["--methods", "fairnas+by_params"], "decides `paths`, but got fairnas and by_params"),
        (["--methods", "fairnas+pa"], "`paths`"),
        (["--methods", "split30+split70"], "`weights`"),
        (["--methods", "stop50+stop60"], "the end of training"),
        (["--methods", "calr+calr_exp"], "ComplexityAwareLR"),
        (["--set", "epochs"], "`epochs`"),
        (["--set", "epochs=0"], "`epochs`"),
        (["--set", "epochs=3", "--set", "epochs=4"], "again"),
        (["--set", "augment=False"], "true or false"),
        (["--set", "benchmark=foo"], "digit_cells"),
        (["--set", "bn_mode=recalibratd"], "recalibrated"),
        (["--set", "learning_rate=NaN"], "above 0"),
        (["--set", "channels=32"], "no effect"),
        (["--set", "cells=3"], "no effect"),
        (["--set", 'operations=["conv_1x1","conv_3x3"]'], "no effect"),
        (["--set", "recalibration_batches=3"], "no effect"),
        (["--set", "batch_size=1024"], "a batch to train on"),
        (["--set", "architectures=1"], "at least 2"),
        (["--set", "name=other"], "name a setting"),
    ],
)
def test_refuses_with_a_message(scripts: Any, capsys: Any, arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        scripts["options"].parsed([*COMMAND, *arguments], None)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, there in (("gpu", False), ("cpu", True), ("cuda", True)):
        monkeypatch.setitem(scripts["options"].DEVICES, name, lambda there=there: there)
    for name in ("cpu", "cuda"):
        assert scripts["options"].parsed([*COMMAND, "--accelerator", name], None).accelerator == name
    with pytest.raises(SystemExit):
        scripts["options"].parsed([*COMMAND, "--accelerator", "gpu"], None)
    assert "but got 'gpu'. Use cpu" in capsys.readouterr().err


def test_refuses_more_images_or_architectures_than_there_are(scripts: Any) -> None:
    # 1,797 digits: 512 to train, 585 to validate, 700 to test; 483 of the 729 cells are different networks.
    for changes in ({"train_images": 513}, {"evaluation_images": 586}):
        with pytest.raises(ConfigurationError, match="512 and 585"):
            ground(scripts).images(Path(), small(scripts, **changes))
    with pytest.raises(ConfigurationError, match="at most 483"):
        scripts["measure"].choose_architectures(ground(scripts).oracle(None), small(scripts, architectures=541))


def test_images_as_they_are_keep_their_side(scripts: Any, made_up: Path, tiny: Any) -> None:
    images = scripts["grounds"].GROUNDS["nasbench201"].images
    assert images(made_up, dataclasses.replace(tiny, image_size=0)).x_train.shape[-1] == 32
    for changes, said in (({"image_size": 33}, "at most 32"), ({"whole_train_set": True}, "sheets")):
        with pytest.raises(ConfigurationError, match=said):
            images(made_up, dataclasses.replace(tiny, **changes))


class Count(SupernetCallback):
    """Count the draws of all supernets."""

    draws = 0

    def on_draws(self, state: Any) -> None:
        """Add those of a step."""
        Count.draws += len(state.draws)


def test_few_shot_training_of_a_sampler_with_several_passes_makes_no_more(scripts: Any, tmp_path: Path) -> None:
    protocol = small(scripts, epochs=9, train_images=64, batch_size=32, evaluation_images=32)
    Count.draws = 0
    scripts["training"].trained_supernet(
        protocol,
        ground(scripts),
        "few_shot+fairnas",
        0,
        ground(scripts).images(Path(), protocol),
        tmp_path,
        callbacks=[Count()],
    )
    assert Count.draws == 9 * 2, "as many as one subnet for each of 2 batches in 9 epochs"


def test_a_stop_counts_the_epochs_of_its_method(scripts: Any) -> None:
    for name in ("fairnas+stop50", "few_shot+stop50"):
        method = scripts["methods"].make_method(name, small(scripts), ground(scripts))
        (stop,) = method.arguments["callbacks"]
        assert stop.epochs == 34, "half of the 67 epochs, a third of 200"
        assert method.steps(small(scripts)) == 34 * 8 * (3 if "few_shot" in name else 1)


def test_a_finished_training_outlives_a_failure_of_the_metrics(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    command = ["--protocol", "small", "--methods", "spos", "--seeds", "0", "--out", str(out)]
    command += ["--set", "epochs=1", "--set", "train_images=64", "--set", "architectures=3"]
    trained: list[int] = []
    at_end = scripts["training"].Progress.on_train_epoch_end

    def counted(self: Any, trainer: Any, module: Any) -> None:
        trained.append(trainer.current_epoch)
        at_end(self, trainer, module)

    def fails(*arguments: Any) -> Any:
        raise ConfigurationError("no metrics")

    monkeypatch.setattr(scripts["training"].Progress, "on_train_epoch_end", counted)
    with monkeypatch.context() as broken:
        broken.setattr(scripts["run"], "line_metrics", fails)
        with pytest.raises(ConfigurationError, match="no metrics"):
            scripts["run"].main(command)
    scripts["run"].main(command)
    (line,) = map(json.loads, out.read_text().splitlines())
    assert trained == [0], "the second command only evaluated"
    assert line["tau_top10pct"] is None
    assert not [path for path in Path(f"{out}.work").iterdir() if path.is_dir()]


def test_a_run_that_another_process_finished_meanwhile_is_not_written_twice(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    measured = scripts["run"]._measured

    def twice(*arguments: Any) -> Any:
        line = measured(*arguments)
        scripts["results"].append_line(out, line)
        return line

    monkeypatch.setattr(scripts["run"], "_measured", twice)
    scripts["run"].main(["--protocol", "small", "--methods", "params", "--out", str(out)])
    assert len(out.read_text().splitlines()) == 1


def test_a_process_ends_with_the_one_that_started_it() -> None:
    child = (
        f"import os, sys, time; sys.path.insert(0, {str(FOLDER)!r}); from jobs import end_with_parent; "
        "end_with_parent(int(sys.argv[1]), interval=0.05); print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())]); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    deadline = time.monotonic() + 50
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)
    process.stdout.close()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_all_architectures_and_the_subset_of_327(scripts: Any) -> None:
    choose, oracle = scripts["measure"].choose_architectures, ground(scripts).oracle(None)
    everything = small(scripts, architectures="all")
    indices = choose(oracle, everything)
    assert indices == list(range(729))
    rng = np.random.default_rng(0)
    found = {"predicted": rng.normal(size=729), "predicted_loss": rng.normal(size=729)}
    metrics = scripts["metrics"].line_metrics(found, everything, oracle, ground(scripts), indices)
    actual = np.array([oracle.accuracy(index) for index in range(729)])
    subset = choose(oracle, small(scripts, architectures=327))
    assert len({oracle.table["group"][index] for index in subset}) == 327
    expected = {
        "tau": stats.kendalltau(found["predicted"], actual).statistic,
        "tau_327": stats.kendalltau(found["predicted"][subset], actual[subset]).statistic,
        "tau_by_loss_327": stats.kendalltau(-found["predicted_loss"][subset], actual[subset]).statistic,
        "pearson": np.corrcoef(found["predicted"], actual)[0, 1],
        "regret": actual.max() - actual[found["predicted"].argmax()],
        "regret_top10": actual.max() - actual[np.argsort(found["predicted"])[-10:]].max(),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    few = scripts["metrics"].line_metrics(
        {"predicted": found["predicted"][:327]}, everything, oracle, ground(scripts), indices[:327]
    )
    assert "tau_327" not in few and "tau_by_loss" not in few


def test_diagnostics_look_at_the_epochs_that_a_method_has(scripts: Any) -> None:
    stages = scripts["diagnose"].stage_epochs
    assert stages(small(scripts, epochs=6), "spos") == {"first": 0, "middle": 2, "last": 5}
    assert stages(small(scripts, epochs=6), "fairnas") == {"first": 0, "middle": 0, "last": 1}
    assert stages(small(scripts, epochs=1), "spos") == {"first": 0, "middle": 0, "last": 0}
    with pytest.raises(ConfigurationError, match="few_shot"):
        stages(small(scripts, epochs=6), "few_shot")


@pytest.mark.parametrize(
    ("method", "said"), [("few_shot", "`few_shot`"), ("snip", "snip"), ("nonsense", "nonsense")]
)
def test_diagnostics_refuse_what_they_cannot_look_into(
    scripts: Any, tmp_path: Path, capsys: Any, method: str, said: str
) -> None:
    with pytest.raises(SystemExit):
        scripts["diagnose"].main(["--methods", f"spos,{method}", "--out", str(tmp_path / "out.jsonl")])
    assert method in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists(), "nothing was trained"
