"""One trial: train a supernet on scikit-learn's digits by the method that NNI chose; see config.yml."""

from functools import partial

import torch
from torch.utils.data import TensorDataset

import nni_supernet_ext  # noqa: F401 - before NNI: it makes `nni.nas` importable everywhere

from nni.nas.evaluator.pytorch import Classification, DataLoader  # isort: skip
from nni.nas.experiment import NasExperiment
from pytorch_lightning import seed_everything
from sklearn.datasets import load_digits

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.spaces import nasbench201
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.trial import Trial

METHODS = {"spos": CosineLR, "calr": ComplexityAwareLR, "ms": partial(MomentumSeparation, by="cell/0_1")}


def loaders() -> tuple[DataLoader, DataLoader]:
    """Return loaders of 1,347 training and 450 validation images of 8 x 8 pixels."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    y = torch.tensor(labels)
    train, valid = TensorDataset(x[:1347], y[:1347]), TensorDataset(x[1347:], y[1347:])
    return DataLoader(train, batch_size=64, shuffle=True), DataLoader(valid, batch_size=450)


with Trial({"method": "calr+ms", "seed": 0, "learning_rate": 0.1, "epochs": 15}) as trial:
    seed_everything(trial.parameters["seed"], verbose=False)
    train, valid = loaders()
    evaluator = Classification(
        optimizer=partial(torch.optim.SGD, momentum=0.9),  # type: ignore[arg-type]
        learning_rate=trial.parameters["learning_rate"],
        train_dataloaders=train,
        val_dataloaders=valid,
        max_epochs=trial.parameters["epochs"],
        num_classes=10,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    strategy = SupernetStrategy(
        callbacks=trial.parts("method", METHODS),
        gradient_clip_val=5.0,
        seed=trial.parameters["seed"],
        validate=6,
        checkpoint_dir=trial.folder,
    )
    space = nasbench201(channels=4, cells_per_stage=1, in_channels=1, affine=True, track_running_stats=True)
    NasExperiment(space, evaluator, strategy).run()
    trial.final()
