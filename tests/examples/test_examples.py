"""The examples run from the command line at their smallest scale."""

from __future__ import annotations

import json
import os
import pickle
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
WRITTEN = ("accuracy.png", "training.png", "retraining.png", "cell.png", "table.txt", "results.json")
NOISE = ("Traceback", "Warning", "WARNING", "ERROR", "DEBUG", "INFO")


def run_example(name: str, *arguments: object) -> str:
    """Run a script as a user does and return what it printed."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    finished = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


@pytest.fixture
def in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], log_levels: None
) -> Callable[..., str]:
    """Run a script in this process, which has imported everything already."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def check_results(out: Path, printed: str) -> None:
    for name in WRITTEN:
        assert (out / name).stat().st_size > 0, name
    table = (out / "table.txt").read_text(encoding="utf-8")
    assert table.strip() in printed
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in results] == ["winner", "random", "largest"]
    winner, _, largest = results
    assert winner["rank"] == 1
    assert largest["architecture"].count("nor_conv_3x3") == 6
    assert largest["parameters"] == max(row["parameters"] for row in results)
    for row in results:
        assert all(0 <= row[name] <= 1 for name in ("inherited_validation", "inherited_test", "retrained_test"))
        assert re.search(rf"{row['name']} .*{row['parameters']:,.0f}", table)


def fake_cifar(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), np.arange(n) % 10


def test_digits_demo_runs_and_a_second_call_finishes_from_its_files(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    printed = run_example("demo_digits.py", "--smoke", "--out", out)
    check_results(out, printed)
    assert [word for word in NOISE if word in printed] == []
    assert "Epoch 0" in printed and "search: 100%" in printed and "lr=" in printed  # progress is shown
    first = (out / "table.txt").read_bytes()
    (out / "retrained" / "random.pt").unlink()
    printed = run_example("demo_digits.py", "--smoke", "--out", out)
    assert printed.count("Done by an earlier run") == 3  # supernet, winner, largest
    assert "random: |" in printed
    assert (out / "table.txt").read_bytes() == first


def test_a_folder_of_another_job_is_refused(tmp_path: Path, in_process: Callable[..., str]) -> None:
    (tmp_path / "job.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit, match="holds a run with other settings"):
        in_process("demo_digits.py", "--smoke", "--out", tmp_path)


def test_cifar_example_runs_on_an_npz_without_validation_images(
    tmp_path: Path, in_process: Callable[..., str]
) -> None:
    images, labels = fake_cifar(300, 0)
    test_images, test_labels = fake_cifar(80, 1)
    path = tmp_path / "images.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=test_images, y_test=test_labels)
    out = tmp_path / "out"
    settings = ["--smoke", "--data", path, "--validation", 80, "--population", 3, "--out", out]
    check_results(out, in_process("cifar10_nasbench201.py", *settings))
    assert json.loads((out / "results.json").read_text(encoding="utf-8"))[0]["evaluated"] == 6
    np.savez(path, x_train=255 - images, y_train=labels, x_test=test_images, y_test=test_labels)
    with pytest.raises(SystemExit, match="holds a run with other settings or images"):
        in_process("cifar10_nasbench201.py", *settings)


def test_cifar_example_reads_the_official_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    names = [*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"]
    for seed, name in enumerate(names):
        images, labels = fake_cifar(20, seed)
        content = {"data": images.transpose(0, 3, 1, 2).reshape(20, -1), "labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("0123456789")}))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from torchvision.datasets import CIFAR10

    # The files are made here, so torchvision's checksums cannot fit.
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *arguments: True)
    from cifar10_nasbench201 import cifar10

    arrays = cifar10(tmp_path, n_validation=20)
    assert {name: len(array) for name, array in arrays.items() if name.startswith("x")} == {
        "x_train": 80,
        "x_valid": 20,
        "x_test": 20,
    }
    images, labels = fake_cifar(20, 5)
    np.testing.assert_array_equal(arrays["x_test"], images)
    np.testing.assert_array_equal(arrays["y_test"], labels)
    assert sorted(np.bincount(arrays["y_valid"])) == [2] * 10


def test_cifar_example_runs_on_real_images(tmp_path: Path, data_dir: Path) -> None:
    path = data_dir / "cifar10_tiny.npz"
    if not path.exists():
        pytest.skip(f"{path} is absent.")
    out = tmp_path / "out"
    check_results(out, run_example("cifar10_nasbench201.py", "--smoke", "--data", path, "--out", out))


def test_pictures_are_normalised_cropped_and_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.syspath_prepend(str(EXAMPLES))
    from images import Pictures, as_images, channel_statistics

    array, labels = fake_cifar(40, 0)
    images = as_images(array)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, array.mean((0, 1, 2)) / 255, rtol=1e-5)
    np.testing.assert_allclose(std, array.std((0, 1, 2)) / 255, rtol=1e-4)
    plain = Pictures(images, torch.from_numpy(labels), mean, std)
    stacked = torch.stack([plain[index][0] for index in range(40)])
    assert stacked.mean().abs() < 1e-4 and (stacked.std() - 1).abs() < 1e-3
    torch.manual_seed(0)
    changed = Pictures(images, torch.from_numpy(labels), mean, std, padding=4, flip=True)
    views = [changed[0][0] for _ in range(10)]
    assert all(view.shape == (3, 32, 32) for view in views)
    assert len({view.sum().item() for view in views}) > 5


def test_true_rank_is_looked_up(in_process: Callable[..., str]) -> None:
    printed = in_process("true_rank.py", "--smoke")
    found = re.search(r"when trained alone: rank (\d+) of 483; the best reaches", printed)
    assert found and 1 <= int(found[1]) <= 483
    assert re.search(r"epoch   2: Kendall's tau -?\d\.\d{3} on 50 architectures", printed)
