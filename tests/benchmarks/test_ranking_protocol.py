"""The ranking measurement runs, resumes and is summarized, on made-up data."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from nni_supernet_ext.benchmarks import NasBench201Oracle
from nni_supernet_ext.spaces import NASBENCH201_OPERATIONS, sample_to_arch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "ranking"
N_TABLE, N_EVALUATED = 30, 12
EDGES = ("0_1", "0_2", "1_2", "0_3", "1_3", "2_3")


@pytest.fixture(scope="module")
def scripts() -> Any:
    """Import the scripts as they import each other: by their bare names."""
    names = ("protocols", "images", "methods", "task", "training", "measure", "run", "summarize")
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
def tiny(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
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


def measure(scripts: Any, data: Path, out: Path, methods: str, *more: str) -> list[dict[str, Any]]:
    arguments = ["--protocol", "tiny", "--methods", methods, "--data", str(data), "--out", str(out), *more]
    scripts["run"].main(arguments)
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_measures_every_method_once(scripts: Any, made_up: Path, tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    first = measure(scripts, made_up, out, "params,spos,calr_ms", "--seeds", "0,1")
    assert [(run["method"], run["seed"]) for run in first] == [
        ("params", 0), ("spos", 0), ("spos", 1), ("calr_ms", 0), ("calr_ms", 1)
    ]  # fmt: skip
    actual = NasBench201Oracle(made_up).table["c10_test"]
    for run in first:
        assert len(run["predicted"]) == len(set(run["indices"])) == N_EVALUATED
        expected = stats.kendalltau(run["predicted"], actual[run["indices"]]).statistic
        assert run["tau"] == pytest.approx(expected)
        assert run["params_tau"] == first[0]["tau"]
        assert run["indices"] == first[0]["indices"]
    assert first[1]["steps"] == 4
    assert first[1]["predicted_loss"] != first[2]["predicted_loss"]
    assert measure(scripts, made_up, out, "params,spos,calr_ms", "--seeds", "0,1") == first


def test_a_killed_run_ends_as_if_it_had_not_been(
    scripts: Any, made_up: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = measure(scripts, made_up, tmp_path / "whole.jsonl", "calr_ms", "--seeds", "0")
    progress, evaluator = scripts["training"].Progress, scripts["measure"].SubnetEvaluator
    out = tmp_path / "killed.jsonl"
    at_end, evaluate = progress.on_train_epoch_end, evaluator.evaluate
    epochs, evaluated = [], []

    def second_epoch_fails(self: Any, trainer: Any, module: Any) -> None:
        epochs.append(trainer.current_epoch)
        if epochs == [0, 1]:
            raise RuntimeError("killed in training")
        at_end(self, trainer, module)

    def fifth_evaluation_fails(self: Any, sample: Any) -> Any:
        evaluated.append(sample)
        if len(evaluated) == 5:
            raise RuntimeError("killed in evaluation")
        return evaluate(self, sample)

    monkeypatch.setattr(progress, "on_train_epoch_end", second_epoch_fails)
    monkeypatch.setattr(evaluator, "evaluate", fifth_evaluation_fails)
    with pytest.raises(RuntimeError, match="killed in training"):
        measure(scripts, made_up, out, "calr_ms", "--seeds", "0")
    with pytest.raises(RuntimeError, match="killed in evaluation"):
        measure(scripts, made_up, out, "calr_ms", "--seeds", "0")
    (resumed,) = measure(scripts, made_up, out, "calr_ms", "--seeds", "0")
    assert epochs == [0, 1, 1], "the finished epoch is not trained again"
    assert len(evaluated) == N_EVALUATED + 1, "only the evaluation that failed is repeated"
    assert resumed["predicted_loss"] == whole["predicted_loss"]


def test_chooses_distinct_groups(scripts: Any, made_up: Path, tiny: Any) -> None:
    oracle = NasBench201Oracle(made_up)
    chosen = scripts["measure"].choose_architectures(oracle, tiny)
    assert len({index // 2 for index in chosen}) == len(chosen) == N_EVALUATED
    assert chosen == scripts["measure"].choose_architectures(oracle, tiny)


def test_only_methods_without_a_rate_of_their_own_get_the_cosine(scripts: Any, tiny: Any) -> None:
    methods = scripts["methods"]
    owners = {name for name, method in methods.METHODS.items() if methods.owns_learning_rate(method())}
    assert owners == {"calr", "calr_ms", "panda_calr_ms"}
    task = scripts["task"].ImageClassification(tiny, cosine=True)
    task.set_model(torch.nn.Linear(2, 2))
    configured = task.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    half = math.sqrt(0.5)
    assert rates == pytest.approx([0.1, 0.05 * (1 + half), 0.05, 0.05 * (1 - half)])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)


def test_augmentation_shifts_and_mirrors(scripts: Any) -> None:
    augment = scripts["images"].Augment(1, torch.Generator().manual_seed(0), torch.contiguous_format)
    x = torch.arange(9.0).view(1, 1, 3, 3).expand(200, 3, 3, 3)
    shifted, labels = augment((x, torch.arange(200)))
    assert labels.tolist() == list(range(200))
    black = (-scripts["images"]._MEAN / scripts["images"]._STD).view(3)
    seen = set()
    for image in shifted:
        for mirrored in (False, True):
            for top in range(3):
                for left in range(3):
                    source = np.full((5, 5), black[0].item(), dtype=np.float32)
                    source[1:4, 1:4] = np.arange(9).reshape(3, 3)
                    window = source[top : top + 3, left : left + 3]
                    window = window[:, ::-1] if mirrored else window
                    if np.array_equal(image[0].numpy(), window):
                        seen.add((mirrored, top, left))
    assert len(seen) == 18, "every shift occurs, mirrored and not, and nothing else does"


def test_epochs_are_shuffled_by_seed_and_number(scripts: Any) -> None:
    shuffle = scripts["images"].EpochShuffle
    first, again, other = shuffle(50, seed=1), shuffle(50, seed=1), shuffle(50, seed=2)
    one = list(first)
    assert sorted(one) == list(range(50))
    assert one == list(again) != list(other)
    first.set_epoch(1)
    assert list(first) != one
    first.set_epoch(0)
    assert list(first) == one


def test_settings_can_be_changed_and_show_in_the_name(scripts: Any, tiny: Any) -> None:
    changed = scripts["run"]._overridden(tiny, ["epochs=3", "bn_mode=recalibrated", "augment=false"])
    assert (changed.epochs, changed.bn_mode, changed.augment) == (3, "recalibrated", False)
    assert changed.name == "tiny+epochs=3+bn_mode=recalibrated+augment=false"
    with pytest.raises(SystemExit, match="no setting 'epoch'"):
        scripts["run"]._overridden(tiny, ["epoch=3"])


def test_counts_the_steps_of_the_published_setting(scripts: Any) -> None:
    published = scripts["protocols"].PROTOCOLS["dynas"]
    assert published.steps == 250 * 391
    assert published.augment and published.bn_mode == "batch"


def test_summary_has_means_intervals_and_differences(scripts: Any, made_up: Path, tmp_path: Path) -> None:
    oracle = NasBench201Oracle(made_up)
    indices = list(range(20))
    actual = oracle.table["c10_test"][indices]
    perfect, reverse = actual.tolist(), (-actual).tolist()
    lines = [
        ("spos", 0, reverse, -1.0),
        ("spos", 1, perfect, 1.0),
        ("calr_ms", 0, perfect, 1.0),
        ("calr_ms", 1, perfect, 1.0),
    ]
    path = tmp_path / "results.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {"protocol": {"name": "p"}, "method": m, "seed": s, "tau": tau, "predicted": x, "indices": indices}
            )
            + "\n"
            for m, s, x, tau in lines
        )
    )
    text = scripts["summarize"].table(scripts["summarize"].read_runs(path)["p"], oracle, draws=50)
    assert "| spos | 2 | 0.000 ± 1.414 | [0.000, 0.000] |" in text
    assert "| calr_ms | 2 | 1.000 ± 0.000 | [1.000, 1.000] |" in text
    assert "- calr_ms - spos: +1.000 in tau, 95 % interval [+1.000, +1.000]" in text
