"""Search a benchmark whose truth is known, and see where the winner really stands. Two minutes, no download.

All 729 architectures of the DigitCells benchmark were trained alone; their accuracies come with the package. The
supernet is trained with SPOS + CaLR + MS, and every few epochs its ranking is compared with the truth.

    python examples/true_rank.py [--epochs 200] [--seed 0] [--smoke]
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial

import nni_supernet_ext  # noqa: F401 - first: where torchvision does not fit torch, NNI needs it

# isort: split
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.experiment import NasExperiment
from torch.utils.data import Dataset, TensorDataset

from nni_supernet_ext.benchmarks import DigitCellsOracle, digit_images, with_noise
from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation, RankingConsistency
from nni_supernet_ext.functional import kendall_tau
from nni_supernet_ext.spaces import digit_cells, digit_cells_params
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy


class NoisyDigits(Dataset):
    """The training images, with fresh noise each time."""

    def __init__(self, seed: int) -> None:
        self.images, self.generator = digit_images(), torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.images.y_train)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return with_noise(self.images.x_train[index], self.generator), self.images.y_train[index]


def make_evaluator(epochs: int, seed: int) -> Classification:
    """Return the training task: SGD on the digits, validated on images that are not trained on."""
    images = digit_images()
    return Classification(
        learning_rate=0.1,
        weight_decay=5e-4,
        optimizer=partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        num_classes=10,
        train_dataloaders=DataLoader(NoisyDigits(seed), batch_size=64, shuffle=True, drop_last=True),
        val_dataloaders=DataLoader(TensorDataset(images.x_valid, images.y_valid), batch_size=585),
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=tempfile.mkdtemp(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=200, help="of the supernet (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, only to see that everything runs")
    options = parser.parse_args()
    epochs = 2 if options.smoke else options.epochs
    torch.manual_seed(options.seed)
    oracle, space = DigitCellsOracle(), digit_cells(track_running_stats=True)

    ranking = RankingConsistency.from_oracle(oracle, n=50, seed=options.seed, every=max(1, epochs // 4))
    strategy = SupernetStrategy(
        callbacks=[ComplexityAwareLR(), MomentumSeparation(), ranking], gradient_clip_val=5.0, seed=options.seed
    )
    NasExperiment(space, make_evaluator(epochs, options.seed), strategy).run()
    # The loss tells subnets apart far better than the accuracy on 585 images: see docs/results.md.
    search = SupernetEvolution(
        population=8 if options.smoke else 40,
        cycles=1 if options.smoke else 4,
        metric="val_loss",
        mode="min",
        seed=options.seed,
    )
    NasExperiment(space, make_evaluator(1, options.seed), search).run()

    for measured in ranking.history:
        print(f"epoch {measured['epoch'] + 1:3d}: Kendall's tau {measured['kendall_tau']:.3f} on 50 architectures")
    rows = oracle.distinct()
    truth = oracle.accuracies(rows)
    params = [digit_cells_params(oracle.sample(row)) for row in rows]
    print(f"by the number of parameters: {kendall_tau(params, truth):.3f} on all {len(rows)} different networks")
    accuracy = oracle.accuracy(search.best.sample)
    print(
        f"The winner of {len(search.history)} evaluated subnets reaches {accuracy:.2f} % when trained alone: rank "
        f"{1 + int((truth > accuracy).sum())} of {len(rows)}; the best reaches {truth.max():.2f} %."
    )


if __name__ == "__main__":
    main()
