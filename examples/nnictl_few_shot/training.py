"""What the trials and the search share: space, data, and the training of the sub-supernets."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import TensorDataset, default_collate

import nni_supernet_ext  # noqa: F401 - before NNI: it makes `nni.nas` importable everywhere

from nni.nas.evaluator.pytorch import Classification, DataLoader  # isort: skip
from nni.nas.experiment import NasExperiment
from pytorch_lightning import seed_everything

from nni_supernet_ext.benchmarks import digit_images, with_noise
from nni_supernet_ext.callbacks import ComplexityAwareLR
from nni_supernet_ext.spaces import digit_cells
from nni_supernet_ext.strategies import ChoiceSplit, FewShotStrategy, SupernetStrategy


def noisy_batch(examples: list) -> tuple[torch.Tensor, torch.Tensor]:
    """Collate training images with fresh noise."""
    images, labels = default_collate(examples)
    return with_noise(images, torch.default_generator), labels


def evaluator(epochs: int) -> Classification:
    """Make the evaluator; every process makes the same one."""
    data = digit_images()
    train, valid = TensorDataset(data.x_train, data.y_train), TensorDataset(data.x_valid, data.y_valid)
    return Classification(
        optimizer=partial(torch.optim.SGD, momentum=0.9),  # type: ignore[arg-type]
        learning_rate=0.1,
        train_dataloaders=DataLoader(train, batch_size=64, shuffle=True, collate_fn=noisy_batch),
        val_dataloaders=DataLoader(valid, batch_size=585),
        max_epochs=epochs,
        num_classes=10,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def few_shot(folder: Path, only: Iterable[int] | None = None) -> FewShotStrategy:
    """Make the training of the parts, one for each candidate of an edge; their files lie in one folder."""
    base = SupernetStrategy(callbacks=[ComplexityAwareLR()], gradient_clip_val=5.0, checkpoint_dir=folder)
    return FewShotStrategy(base, [ChoiceSplit("cell/0_1")], only=only)


def train(strategy: FewShotStrategy, epochs: int) -> None:
    """Train what the strategy asks for and is not finished yet."""
    seed_everything(0, verbose=False)
    NasExperiment(digit_cells(), evaluator(epochs), strategy).run()
