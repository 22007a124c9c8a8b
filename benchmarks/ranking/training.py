"""Train one supernet, resumably, and keep its weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from images import Images, train_loader, valid_loader
from methods import METHODS, owns_learning_rate
from nni.nas.evaluator.pytorch import Lightning, Trainer
from nni.nas.experiment import NasExperiment
from protocols import Protocol
from task import ImageClassification

from nni_supernet_ext.core import Supernet
from nni_supernet_ext.spaces import NasBench201, nasbench201
from nni_supernet_ext.strategies import SupernetStrategy


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
        print(json.dumps(entry), flush=True)


def epochs_of(folder: Path) -> dict[int, dict[str, float]]:
    """Read what `Progress` wrote, the last entry of every epoch."""
    path = folder / "epochs.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {entry["epoch"]: entry for entry in map(json.loads, lines)}


def make_space(protocol: Protocol) -> NasBench201:
    """Build the untrained space of a protocol; weights come from the global random state."""
    space = nasbench201(protocol.channels, protocol.cells, track_running_stats=protocol.bn_mode == "recalibrated")
    if protocol.channels_last:
        space.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return space


def trained_supernet(
    protocol: Protocol, method: str, seed: int, images: Images, folder: Path, accelerator: str = "cpu"
) -> Supernet:
    """Return the trained supernet of a run: from its weights, its last checkpoint, or from the start.

    Args:
        protocol: Everything but the method.
        method: Key of `METHODS`.
        seed: Seed of weights, paths, batches and augmentation.
        images: Training and evaluation images.
        folder: Holds what a killed run needs to go on.
        accelerator: Lightning's name of the device to train on.

    Returns:
        The supernet on the CPU.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.pt"
    pl.seed_everything(seed, verbose=False)
    space = make_space(protocol)
    if weights.exists():
        supernet = Supernet(SupernetStrategy().mutate_model(space))
        supernet.model.load_state_dict(torch.load(weights, weights_only=True))
        return supernet
    arguments = METHODS[method]()
    callbacks = [*arguments.pop("callbacks", ()), Progress(folder / "epochs.jsonl")]
    strategy = SupernetStrategy(
        **{
            "gradient_clip_val": protocol.clip,
            "set_to_none": protocol.set_to_none,
            "seed": seed,
            "validate": 0,
            "recalibrate_batches": 0,
            "checkpoint_dir": folder,
            **arguments,
        },
        callbacks=callbacks,
    )
    trainer = Trainer(
        max_epochs=protocol.epochs,
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        default_root_dir=str(folder),
    )
    evaluator = Lightning(
        ImageClassification(protocol, cosine=not owns_learning_rate({"callbacks": callbacks})),
        trainer,
        train_dataloaders=train_loader(images, protocol, seed),
        val_dataloaders=valid_loader(images, protocol),
    )
    experiment = NasExperiment(space, evaluator, strategy)
    experiment.config.experiment_working_directory = str(folder / "nni")
    try:
        experiment.run()
    finally:
        # NNI would do so when the process ends, and until then keep a thread and the data.
        experiment.stop()
    supernet = strategy.trained
    supernet.model.to("cpu")
    torch.save({name: tensor for name, tensor in supernet.model.state_dict().items()}, weights)
    return supernet
