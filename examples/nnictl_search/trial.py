"""The one trial of the experiment: train a supernet on scikit-learn's digits, then search it; see config.yml."""

from functools import partial

import torch
from torch.utils.data import TensorDataset

import nni_supernet_ext  # noqa: F401 - before NNI: it makes `nni.nas` importable everywhere

from nni.nas.evaluator.pytorch import Classification, DataLoader  # isort: skip
from nni.nas.experiment import NasExperiment
from pytorch_lightning import seed_everything
from sklearn.datasets import load_digits

from nni_supernet_ext.spaces import nasbench201
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy
from nni_supernet_ext.trial import Trial

with Trial({"epochs": 15, "population": 50, "cycles": 11}) as trial:
    seed_everything(0, verbose=False)
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    y = torch.tensor(labels)
    evaluator = Classification(
        optimizer=partial(torch.optim.SGD, momentum=0.9),  # type: ignore[arg-type]
        learning_rate=0.05,
        train_dataloaders=DataLoader(TensorDataset(x[:1347], y[:1347]), batch_size=64, shuffle=True),
        val_dataloaders=DataLoader(TensorDataset(x[1347:], y[1347:]), batch_size=450),
        max_epochs=trial.parameters["epochs"],
        num_classes=10,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    space = nasbench201(channels=4, cells_per_stage=1, in_channels=1, affine=True, track_running_stats=True)
    NasExperiment(space, evaluator, SupernetStrategy(checkpoint_dir=trial.folder, gradient_clip_val=5.0)).run()
    search = SupernetEvolution(
        population=trial.parameters["population"],
        cycles=trial.parameters["cycles"],
        count_flops=True,
        recalibrate_batches=4,
        journal=trial.folder / "search.jsonl",
        progress=False,
    )
    NasExperiment(space, evaluator, search).run()
    trial.final()
