"""The job that the examples share: train a supernet, search it, retrain the winner, report.

Everything is written into one folder. The same command, given again, goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nni_supernet_ext  # noqa: F401 - first: where torchvision does not fit torch, NNI needs it

# isort: split
import numpy as np
import pytorch_lightning as pl
import torch
from images import Pictures, Splits
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.experiment import NasExperiment
from pytorch_lightning.callbacks import TQDMProgressBar
from report import Result, draw, format_table
from torch import nn

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.callbacks.history import TrainingHistory
from nni_supernet_ext.core import SubnetEvaluator, Supernet, find_extremes, resolve_complexity
from nni_supernet_ext.spaces import NasBench201, nasbench201, sample_to_arch
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy
from nni_supernet_ext.strategies.retrain import retrain

METRIC = "val_acc"
"""What the search ranks by: accuracy on the validation images."""


@dataclass(frozen=True)
class Job:
    """Sizes and hyper-parameters of one run.

    Args:
        channels: Output channels of the supernet's stem.
        cells_per_stage: Cells in each of its three stages.
        supernet_epochs: Epochs of the supernet's training.
        retrain_epochs: Epochs of each retraining.
        population: Subnets per cycle of the search.
        cycles: Cycles of the search after its random first population.
        batch_size: Images per batch.
        learning_rate: Base learning rate of the supernet and of the retraining.
        weight_decay: Weight decay of both.
        recalibrate_batches: Training batches for the BN statistics of each evaluated subnet.
        validate_every: Epochs between two validations.
        workers: Worker processes of each data loader.
        accelerator: Lightning's accelerator, for example ``'cpu'`` or ``'auto'``.
        seed: Seed of everything.
    """

    channels: int
    cells_per_stage: int
    supernet_epochs: int
    retrain_epochs: int
    population: int
    cycles: int
    batch_size: int = 64
    learning_rate: float = 0.05
    weight_decay: float = 5e-4
    recalibrate_batches: int = 5
    validate_every: int = 10
    workers: int = 0
    accelerator: str = "cpu"
    seed: int = 0


def run(job: Job, splits: Splits, out: Path) -> list[Result]:
    """Do the whole job and write everything into ``out``.

    Args:
        job: Sizes and hyper-parameters.
        splits: Training, validation and test images.
        out: Folder of all files; made where it is missing.

    Returns:
        The rows of the table: winner, random subnet, largest subnet.
    """
    started = time.perf_counter()
    _quieten()
    out = out.resolve()
    _claim(out, job, splits)
    with _stage(1, f"Train the supernet: {job.supernet_epochs} epochs of SPOS + CaLR + MS"):
        space, history = train_supernet(job, splits, out)
    with _stage(2, f"Search: up to {job.population * (job.cycles + 1)} subnets, ranked by {METRIC}"):
        search = search_subnets(space, job, splits, out)
    domain = search.supernet.domain
    contenders = {
        "winner": search.best.sample,
        "random": domain.random(np.random.default_rng(job.seed)),
        "largest": find_extremes(resolve_complexity("parameters", search.supernet), domain).largest,
    }
    with _stage(3, f"Retrain from scratch: {job.retrain_epochs} epochs each, plain cosine schedule"):
        retrained = {
            name: retrain_subnet(name, sample, search.supernet, job, splits, out)
            for name, sample in contenders.items()
        }
    with _stage(4, "Compare on the test images, which nothing has used so far"):
        networks = {name: network for name, (network, _) in retrained.items()}
        results = compare(contenders, networks, search, job, splits)
        draw(results, search, history, retrained["winner"][1], out)
    table = format_table(results)
    (out / "table.txt").write_text(table + "\n", encoding="utf-8")
    (out / "results.json").write_text(json.dumps([asdict(r) for r in results], indent=2) + "\n", encoding="utf-8")
    print(f"\n{table}\n\n{time.perf_counter() - started:.0f} s in all. Table and plots: {out}")
    return results


# The stages


def train_supernet(job: Job, splits: Splits, out: Path) -> tuple[NasBench201, TrainingHistory]:
    """Train the supernet through NNI, or load it where an earlier run has finished it."""
    pl.seed_everything(job.seed, verbose=False)
    space = nasbench201(
        channels=job.channels,
        cells_per_stage=job.cells_per_stage,
        in_channels=splits.channels,
        n_classes=splits.n_classes,
        track_running_stats=True,
    )
    history, finished = TrainingHistory(), out / "supernet.pt"
    strategy = SupernetStrategy(
        callbacks=[ComplexityAwareLR(), MomentumSeparation(), history],
        gradient_clip_val=5.0,
        seed=job.seed,
        recalibrate_batches=job.recalibrate_batches,
        checkpoint_dir=out / "supernet",
    )
    if finished.exists():
        print(f"Done by an earlier run: {finished}")
        saved = torch.load(finished, weights_only=True)
        strategy.mutate_model(space)
        space.load_state_dict(saved["weights"])
        history.load_state_dict(saved["history"])
        return space, history
    _run_experiment(space, _evaluator(job, splits, out, job.supernet_epochs), strategy, out)
    _save({"weights": space.state_dict(), "history": history.state_dict()}, finished)
    return space, history


def search_subnets(space: NasBench201, job: Job, splits: Splits, out: Path) -> SupernetEvolution:
    """Search the trained supernet through NNI; a journal keeps every evaluation."""
    search = SupernetEvolution(
        population=job.population,
        cycles=job.cycles,
        metric=METRIC,
        count_flops=True,
        recalibrate_batches=job.recalibrate_batches,
        journal=out / "search.jsonl",
        seed=job.seed,
    )
    # Lightning moves a trained model back to the CPU.
    if job.accelerator != "cpu" and torch.cuda.is_available():
        space.to("cuda")
    _run_experiment(space, _evaluator(job, splits, out, 1), search, out)
    return search


def retrain_subnet(
    name: str, sample: Mapping[str, Any], supernet: Supernet, job: Job, splits: Splits, out: Path
) -> tuple[nn.Module, TrainingHistory]:
    """Retrain one subnet as a network of its own, or load what an earlier run has retrained."""
    network, history, finished = supernet.extract(sample), TrainingHistory(), out / "retrained" / f"{name}.pt"
    if finished.exists():
        print(f"Done by an earlier run: {finished}")
        saved = torch.load(finished, weights_only=True)
        network.load_state_dict(saved["weights"])
        history.load_state_dict(saved["history"])
        return network, history
    print(f"{name}: {sample_to_arch(sample)}")
    pl.seed_everything(job.seed, verbose=False)
    evaluator = _evaluator(job, splits, out, job.retrain_epochs, callbacks=[history], enable_checkpointing=False)
    retrain(network, evaluator)
    network = evaluator.module.model
    _save({"weights": network.state_dict(), "history": history.state_dict()}, finished)
    return network, history


def compare(
    contenders: Mapping[str, Mapping[str, Any]],
    retrained: Mapping[str, nn.Module],
    search: SupernetEvolution,
    job: Job,
    splits: Splits,
) -> list[Result]:
    """Measure every contender with inherited weights and retrained."""
    supernet = search.supernet
    device = next(supernet.model.parameters()).device
    parameters = resolve_complexity("parameters", supernet)
    flops = resolve_complexity("flops", supernet, torch.stack([splits.test[i][0] for i in range(2)]).to(device))
    inherited = {
        name: SubnetEvaluator(
            supernet,
            _evaluator(job, splits, Path(), 1).module,
            _loader(pictures, job),
            calibration=_loader(splits.train, job, shuffle=True),
            recalibrate_batches=job.recalibrate_batches,
            seed=job.seed,
        )
        for name, pictures in (("validation", splits.validation), ("test", splits.test))
    }
    results = []
    for name, sample in contenders.items():
        validation, test = (inherited[part].evaluate(sample) for part in ("validation", "test"))
        known = any(subnet.sample == sample for subnet in search.history)
        results.append(
            Result(
                name=name,
                architecture=sample_to_arch(sample),
                rank=1 + sum(subnet.metrics[METRIC] > validation[METRIC] for subnet in search.history),
                evaluated=len(search.history) + (not known),
                inherited_validation=validation["val_acc"],
                inherited_test=test["val_acc"],
                retrained_test=_accuracy(retrained[name].to(device), _loader(splits.test, job)),
                parameters=parameters(sample),
                flops=flops(sample),
            )
        )
    return results


# What the stages share


def _evaluator(job: Job, splits: Splits, out: Path, epochs: int, **trainer: Any) -> Classification:
    """Make a fresh NNI evaluator: SGD with momentum, this job's images, a progress bar on one line."""
    callbacks = [TQDMProgressBar(leave=False), *trainer.pop("callbacks", [])]
    return Classification(
        learning_rate=job.learning_rate,
        weight_decay=job.weight_decay,
        optimizer=partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        train_dataloaders=_loader(splits.train, job, shuffle=True),
        val_dataloaders=_loader(splits.validation, job),
        num_classes=splits.n_classes,
        max_epochs=epochs,
        check_val_every_n_epoch=min(job.validate_every, epochs),
        callbacks=callbacks,
        accelerator=job.accelerator,
        devices=1,
        logger=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(out),
        **trainer,
    )


def _loader(pictures: Pictures, job: Job, shuffle: bool = False) -> DataLoader:
    """Make a loader: for training shuffled and without the last, smaller batch; else with larger batches."""
    return DataLoader(
        pictures,
        batch_size=job.batch_size if shuffle else 4 * job.batch_size,
        shuffle=shuffle,
        drop_last=shuffle,
        num_workers=job.workers,
        persistent_workers=job.workers > 0,
    )


def _run_experiment(space: NasBench201, evaluator: Classification, strategy: Any, out: Path) -> None:
    experiment = NasExperiment(space, evaluator, strategy)
    experiment.config.experiment_working_directory = str(out / "nni-experiments")
    experiment.run()


def _accuracy(network: nn.Module, loader: Any) -> float:
    """Return the share of images that a network gets right."""
    network.eval()
    device = next(network.parameters()).device
    with torch.no_grad():
        right = sum(int((network(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in loader)
    return right / len(loader.dataset)


def _save(content: dict[str, Any], path: Path) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    torch.save(content, unfinished)
    os.replace(unfinished, path)


def _claim(out: Path, job: Job, splits: Splits) -> None:
    """Remember the job and its images in the folder, and refuse a folder that holds another one."""
    out.mkdir(parents=True, exist_ok=True)
    path, settings = out / "job.json", json.dumps({**asdict(job), "images": _digest(splits)}, indent=2) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != settings:
        raise SystemExit(
            f"{out} holds a run with other settings or images (see job.json). Give another --out, or delete it."
        )
    path.write_text(settings, encoding="utf-8")


def _digest(splits: Splits) -> str:
    """Return the SHA-256 of all images and labels."""
    digest = hashlib.sha256()
    for pictures in (splits.train, splits.validation, splits.test):
        for tensor in (pictures.images, pictures.labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _quieten() -> None:
    """Leave the console to the progress bars and the table; warnings are still shown."""
    for name in ("nni", "pytorch_lightning", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")


@contextmanager
def _stage(number: int, title: str) -> Iterator[None]:
    """Announce a stage, and say how long it took."""
    print(f"\n[{number}/4] {title}", flush=True)
    started = time.perf_counter()
    yield
    print(f"      {time.perf_counter() - started:.1f} s", flush=True)
