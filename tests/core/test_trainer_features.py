"""What else a trainer does, or has for callbacks, leaves the training as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import callbacks
from pytorch_lightning.loggers import CSVLogger

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.data import ImportanceDataSampler
from nni_supernet_ext.paths import ImportancePathSampler
from nni_supernet_ext.testing import MethodCase
from nni_supernet_ext.testing.training import Run, differing, train

EPOCHS = 3


def _trained(root: Path, **trainer: Any) -> Run:
    parts = {
        "paths": ImportancePathSampler(),
        "data": ImportanceDataSampler(),
        "callbacks": [ComplexityAwareLR(), MomentumSeparation(by="op")],
    }
    return train(MethodCase("all", dict), parts, root, epochs=EPOCHS, evaluator_arguments=trainer)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _trained(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "feature",
    [
        lambda folder: {"callbacks": [callbacks.EarlyStopping("val_loss", patience=EPOCHS)]},
        lambda folder: {"callbacks": [callbacks.ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=-1)]},
        lambda folder: {"callbacks": [callbacks.ModelCheckpoint(folder, monitor="val_loss", save_last=True)]},
        lambda folder: {
            "callbacks": [callbacks.LearningRateMonitor("step", log_momentum=True)],
            "logger": CSVLogger(folder),
            "log_every_n_steps": 1,
        },
        lambda folder: {"callbacks": [callbacks.Timer("00:01:00:00"), callbacks.OnExceptionCheckpoint(folder)]},
        lambda folder: {"logger": [CSVLogger(folder), CSVLogger(folder / "other")]},
        lambda folder: {"detect_anomaly": True, "deterministic": True, "inference_mode": False},
        lambda folder: {"num_sanity_val_steps": -1, "val_check_interval": 2},
        lambda folder: {"check_val_every_n_epoch": None, "val_check_interval": 3},
        lambda folder: {"check_val_every_n_epoch": 2, "reload_dataloaders_every_n_epochs": 1},
    ],
    ids=["stopping", "checkpoints", "best", "monitor", "timer", "loggers", "debug", "sanity", "steps", "reload"],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_the_training_stays_as_it_is(feature: Any, plain: Run, tmp_path: Path) -> None:
    run = _trained(tmp_path, **feature(tmp_path / "made"))
    assert run.draws == plain.draws
    assert not differing(run.weights, plain.weights)
