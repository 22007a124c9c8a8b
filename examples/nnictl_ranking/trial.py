"""One trial: train a supernet of the DigitCells benchmark and rank its architectures; see config.yml."""

import sys
from functools import partial

import torch
from torch.utils.data import TensorDataset, default_collate

import nni_supernet_ext  # noqa: F401 - before NNI: it makes `nni.nas` importable everywhere

from nni.nas.evaluator.pytorch import Classification, DataLoader  # isort: skip
from nni.nas.experiment import NasExperiment
from pytorch_lightning import seed_everything

from nni_supernet_ext.benchmarks import DigitCellsOracle, digit_images, with_noise
from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation, RankingConsistency
from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.spaces import digit_cells
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.trial import Trial

METHODS = {"spos": CosineLR, "calr": ComplexityAwareLR, "ms": partial(MomentumSeparation, by="cell/0_1")}
SCALE = {"epochs": 2, "architectures": 10} if "--smoke" in sys.argv else {"epochs": 60, "architectures": 40}


def noisy_batch(examples: list) -> tuple[torch.Tensor, torch.Tensor]:
    """Collate training images with fresh noise, as the benchmark trains on them."""
    images, labels = default_collate(examples)
    return with_noise(images, torch.default_generator), labels


# The web page plots `default`: Kendall's tau between the supernet's accuracies and the benchmark's.
with Trial({"method": "calr+ms", "seed": 0, **SCALE}, metric="ranking_kendall_tau") as trial:
    seed_everything(trial.parameters["seed"], verbose=False)
    data = digit_images()
    train, valid = TensorDataset(data.x_train, data.y_train), TensorDataset(data.x_valid, data.y_valid)
    evaluator = Classification(
        optimizer=partial(torch.optim.SGD, momentum=0.9),  # type: ignore[arg-type]
        learning_rate=0.1,
        train_dataloaders=DataLoader(train, batch_size=64, shuffle=True, collate_fn=noisy_batch),
        val_dataloaders=DataLoader(valid, batch_size=585),
        max_epochs=trial.parameters["epochs"],
        num_classes=10,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    ranking = RankingConsistency.from_oracle(DigitCellsOracle(), n=trial.parameters["architectures"])
    callbacks = [*trial.parts("method", METHODS), ranking]
    seed, folder = trial.parameters["seed"], trial.folder
    strategy = SupernetStrategy(callbacks=callbacks, gradient_clip_val=5.0, seed=seed, checkpoint_dir=folder)
    NasExperiment(digit_cells(), evaluator, strategy).run()
    trial.final()
