"""NAS-Bench-201 on CIFAR-10: SPOS + CaLR + MS, evolutionary search, retraining.

python examples/cifar10_nasbench201.py                  # torchvision downloads CIFAR-10 into ./data
python examples/cifar10_nasbench201.py --data FOLDER    # that holds cifar-10-batches-py
python examples/cifar10_nasbench201.py --data FILE.npz  # x_train, y_train, x_test, y_test [, x_valid, y_valid]
python examples/cifar10_nasbench201.py --smoke          # any of these at the smallest scale
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from images import Pictures, Splits, as_images, channel_statistics
from main_job import Job, run
from sklearn.model_selection import train_test_split

JOB = Job(
    channels=16,
    cells_per_stage=5,
    supernet_epochs=250,
    retrain_epochs=200,
    population=50,
    cycles=20,
    learning_rate=0.025,
    recalibrate_batches=20,
    accelerator="auto",
    workers=2,
)
SMOKE = replace(
    JOB,
    channels=4,
    cells_per_stage=1,
    supernet_epochs=2,
    retrain_epochs=1,
    population=4,
    cycles=1,
    recalibrate_batches=1,
    workers=0,
)

SIZES = ("channels", "cells_per_stage", "supernet_epochs", "retrain_epochs", "population", "cycles", "workers")
"""The settings of the job that are arguments of the command."""

Arrays = dict[str, np.ndarray]


def cifar10(data: Path | None, n_validation: int) -> Arrays:
    """Read CIFAR-10 as bytes, shape ``(N, 32, 32, 3)``, with labels.

    Args:
        data: Folder for or with ``cifar-10-batches-py``, or an npz file; None downloads into ``./data``.
        n_validation: Images taken from the training set for validation, where the data have none of their own.

    Returns:
        ``x_train``, ``y_train``, ``x_valid``, ``y_valid``, ``x_test`` and ``y_test``.
    """
    if data is not None and data.suffix == ".npz":
        with np.load(data) as file:
            arrays = dict(file)
    else:
        from torchvision.datasets import CIFAR10

        arrays = {}
        for name in ("train", "test"):
            part = CIFAR10(data or "data", train=name == "train", download=data is None)
            arrays |= {f"x_{name}": part.data, f"y_{name}": np.asarray(part.targets)}
    if "x_valid" not in arrays:
        labels = arrays["y_train"]
        train, validation = train_test_split(
            np.arange(len(labels)), test_size=n_validation, stratify=labels, random_state=0
        )
        for kind in "xy":
            whole = arrays[f"{kind}_train"]
            arrays[f"{kind}_train"], arrays[f"{kind}_valid"] = whole[train], whole[validation]
    return arrays


def make_splits(arrays: Arrays, smoke: bool = False) -> Splits:
    """Normalise; crop and mirror the training images at random."""
    if smoke:
        arrays = {name: array[: 128 if name.endswith("train") else 64] for name, array in arrays.items()}
    images = {name: as_images(arrays[f"x_{name}"]) for name in ("train", "valid", "test")}
    labels = {name: torch.from_numpy(arrays[f"y_{name}"].astype(np.int64)) for name in images}
    statistics = channel_statistics(images["train"])
    return Splits(
        train=Pictures(images["train"], labels["train"], *statistics, padding=4, flip=True),
        validation=Pictures(images["valid"], labels["valid"], *statistics),
        test=Pictures(images["test"], labels["test"], *statistics),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder or npz file; without it, torchvision downloads")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10"), help="folder of results (%(default)s)")
    parser.add_argument("--smoke", action="store_true", help="the smallest scale: only see that everything runs")
    parser.add_argument("--validation", type=int, default=5000, help="validation images (%(default)s)")
    for name in SIZES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default {getattr(JOB, name)}")
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args())
    data, out, smoke, n_validation = (given.pop(name) for name in ("data", "out", "smoke", "validation"))
    job = replace(SMOKE if smoke else JOB, **{name: value for name, value in given.items() if value is not None})
    run(job, make_splits(cifar10(data, n_validation), smoke), out)


if __name__ == "__main__":
    main()
