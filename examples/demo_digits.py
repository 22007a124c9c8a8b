"""NAS on scikit-learn's handwritten digits: a few minutes on two CPU cores, no download.

Each 8x8 digit lies at a random place of a 12x12 image, which makes architectures differ.

    python examples/demo_digits.py [--out runs/demo] [--smoke]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from images import Pictures, Splits, channel_statistics, random_crop
from main_job import Job, run
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

JOB = Job(
    channels=4,
    cells_per_stage=1,
    supernet_epochs=90,
    retrain_epochs=20,
    population=50,
    cycles=5,
    learning_rate=0.1,
)
SMOKE = Job(
    channels=4,
    cells_per_stage=1,
    supernet_epochs=2,
    retrain_epochs=1,
    population=4,
    cycles=1,
    recalibrate_batches=1,
)
SIZE, PADDING, HELD_OUT = 12, 4, 450


def digits(seed: int = 0, smoke: bool = False) -> Splits:
    """Split the digits, stratified, into training, validation and test images."""
    data = load_digits()
    images = torch.from_numpy(np.rint(data.images * 255 / 16).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(data.target)
    rest, test = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=seed)
    train, validation = train_test_split(rest, test_size=HELD_OUT, stratify=labels[rest], random_state=seed)
    if smoke:
        train, validation, test = train[:128], validation[:64], test[:64]
    generator = torch.Generator().manual_seed(seed)

    def placed(indices: np.ndarray) -> torch.Tensor:
        return torch.stack([random_crop(image, PADDING, SIZE, generator) for image in images[indices]])

    statistics = channel_statistics(placed(train))
    return Splits(
        train=Pictures(images[train], labels[train], *statistics, padding=PADDING, size=SIZE),
        validation=Pictures(placed(validation), labels[validation], *statistics),
        test=Pictures(placed(test), labels[test], *statistics),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of all results (%(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a few seconds, only to see that everything runs")
    arguments = parser.parse_args()
    run(SMOKE if arguments.smoke else JOB, digits(smoke=arguments.smoke), arguments.out)


if __name__ == "__main__":
    main()
