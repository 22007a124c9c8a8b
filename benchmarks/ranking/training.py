"""Train one supernet, or its parts, resumably."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from grounds import Ground
from images import Images, train_loader, valid_loader
from methods import make_method
from nni.nas.evaluator.pytorch import Lightning, Trainer
from nni.nas.experiment import NasExperiment
from protocols import Protocol
from task import ImageClassification

from nni_supernet_ext.core import Supernet, WeightStore
from nni_supernet_ext.strategies import FewShotStrategy, SupernetStrategy


class Progress(pl.Callback):
    """Write every epoch's mean loss and seconds, by the clock and of the processor.

    Seconds of an interrupted epoch are not counted.

    Args:
        path: File of JSON lines; a resumed run goes on writing to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._since = (0.0, 0.0)
        self._sum: Any = 0.0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._since, self._sum = (time.perf_counter(), time.process_time()), 0.0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add up the loss without waiting for the device."""
        self._sum = self._sum + pl_module.state.loss

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the epoch down."""
        entry = {
            "epoch": trainer.current_epoch,
            "loss": round(float(self._sum) / trainer.num_training_batches, 5),
            "seconds": round(time.perf_counter() - self._since[0], 3),
            "cpu_seconds": round(time.process_time() - self._since[1], 3),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def epochs_of(folder: Path) -> list[dict[str, float]]:
    """Read what `Progress` wrote.

    Sub-supernets count their epochs anew, so numbers may come again; one that follows itself, after the first, is
    an epoch that was trained again after a kill, and counts once.
    """
    path = folder / "epochs.jsonl"
    epochs: list[dict[str, float]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        entry = json.loads(line)
        if epochs and entry["epoch"] == epochs[-1]["epoch"] > 0:
            epochs.pop()
        epochs.append(entry)
    return epochs


def trained_supernet(
    protocol: Protocol,
    ground: Ground,
    name: str,
    seed: int,
    images: Images,
    folder: Path,
    accelerator: str = "cpu",
    callbacks: Sequence[pl.Callback] = (),
) -> tuple[Supernet, WeightStore]:
    """Train a supernet, or go on where a killed run was; a finished one is only read.

    Args:
        protocol: Everything but the method.
        ground: Space and table.
        name: Name of the method.
        seed: Seed of weights, paths, batches and random changes of images.
        images: Training and evaluation images.
        folder: Holds what a killed run needs to go on.
        accelerator: Lightning's name of the device to train on.
        callbacks: What else watches the training.

    Returns:
        The supernet on the CPU, and the store that activates a subnet with the weights that belong to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(seed, verbose=False)
    space = ground.space(protocol)
    if protocol.channels_last:
        space.to(memory_format=torch.channels_last)
    method = make_method(name, protocol, ground, seed)
    own = method.adapted(protocol)
    arguments = dict(method.arguments)
    watching = [*arguments.pop("callbacks"), *callbacks, Progress(folder / "epochs.jsonl")]
    strategy: Any = SupernetStrategy(
        **{
            "gradient_clip_val": protocol.clip,
            "set_to_none": protocol.set_to_none,
            "seed": seed,
            "validate": 0,
            "recalibrate_batches": 0,
            "checkpoint_dir": folder,
            "record": False,
            **arguments,
        },
        callbacks=watching,
    )
    if method.few_shot is not None:
        strategy = FewShotStrategy(strategy, **method.few_shot)
    trainer = Trainer(
        max_epochs=own.epochs,
        accelerator=accelerator,
        devices=1,
        precision=own.precision,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        default_root_dir=str(folder),
    )
    evaluator = Lightning(
        ImageClassification(own, cosine=not method.owns_learning_rate),
        trainer,
        train_dataloaders=train_loader(images, own, seed),
        val_dataloaders=valid_loader(images, own),
    )
    experiment = NasExperiment(space, evaluator, strategy)
    experiment.config.experiment_working_directory = str(folder / "nni")
    try:
        experiment.run()
    finally:
        # NNI would do so when the process ends, and until then keep a thread and the data.
        experiment.stop()
    strategy.trained.model.to("cpu")
    return strategy.trained, strategy.weights
