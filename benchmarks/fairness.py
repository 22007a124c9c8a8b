"""What strict fairness and few-shot training cost, against uniform single-path training.

    python benchmarks/fairness.py --out fairness.json [--steps 12] [--rounds 5] [--channels 16] [--cells 1]

1. A FairNAS step against n uniform steps: seconds of training. n is the number of draws in a fair step. Both train
   the very same paths: the uniform run is given the fair run's draws one a step, on the same batches, so that the
   difference is that of the methods and not of the paths. The uniform run makes n optimizer steps where the fair
   one makes one; the expectation is at most 1.02.
2. Memory kept for backward passes: the most bytes that autograd holds at once in a fair step, against the largest
   single draw of it, and on a CUDA device the allocator's peak; the expectation is at most 1.05.
3. Few-shot training of K sub-supernets against K single-path trainings of the same numbers of steps and the same
   paths; the expectation is 1.0.

Both make their steps in turn, in threads of one process; reported are the ratio of all their seconds, and the
median and quartiles of the ratios of single turns. Seconds are those of the processor on a processor, and of the
clock on a CUDA device.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nni_supernet_ext  # noqa: F401 - before anything that imports NNI

import numpy as np  # isort: skip
import pytorch_lightning as pl  # isort: skip
import torch  # isort: skip
from kept_bytes import KeptBytes  # isort: skip
from lockstep import compared, in_lockstep  # isort: skip
from nni.nas.evaluator.pytorch import Classification, DataLoader  # isort: skip
from nni.nas.execution import SequentialExecutionEngine  # isort: skip
from nni.nas.space import RawFormatModelSpace  # isort: skip
from torch.utils.data import TensorDataset  # isort: skip

from nni_supernet_ext.core import Draw, PathSampler, SupernetCallback  # isort: skip
from nni_supernet_ext.paths import FairPathSampler  # isort: skip
from nni_supernet_ext.spaces import NASBENCH201_OPERATIONS, nasbench201  # isort: skip
from nni_supernet_ext.strategies import ChoiceSplit, FewShotStrategy, SupernetStrategy  # isort: skip


class Replay(PathSampler):
    """Train given samples, one a step; the list may still be growing."""

    def __init__(self, samples: Sequence[Any], first: int = 0) -> None:
        self.samples, self.first = samples, first

    def draws(self, rng: np.random.Generator, state: Any) -> Sequence[Draw]:
        """Return the step's sample."""
        return (Draw(self.samples[self.first + state.iteration]),)


class Watch(SupernetCallback):
    """Record the draws of all steps; a copy, as sub-supernets get, is the callback itself."""

    def __init__(self) -> None:
        self.samples: list[Any] = []

    def __deepcopy__(self, memo: Any) -> Watch:
        return self

    def on_draws(self, state: Any) -> None:
        """Take the step's samples."""
        self.samples += [dict(draw.sample) for draw in state.draws]


def evaluator(options: argparse.Namespace, steps: int, folder: str) -> Classification:
    """Make an evaluator that trains for some steps on random images, and validates on a single batch."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(steps * options.batch, 3, options.size, options.size, generator=generator)
    labels = torch.randint(10, (len(images),), generator=generator)
    data = TensorDataset(images, labels)
    return Classification(
        learning_rate=0.025,
        weight_decay=5e-4,
        optimizer=lambda parameters, **kwargs: torch.optim.SGD(parameters, momentum=0.9, **kwargs),
        num_classes=10,
        train_dataloaders=DataLoader(data, batch_size=options.batch),
        val_dataloaders=DataLoader(TensorDataset(images[:2], labels[:2]), batch_size=2),
        max_epochs=1,
        accelerator=options.accelerator,
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        default_root_dir=folder,
    )


def prepared(options: argparse.Namespace, strategy: Any, steps: int, folder: str) -> Callable[[], None]:
    """Set up the training of a new space, and return what trains."""
    torch.manual_seed(0)
    space = nasbench201(options.channels, options.cells)
    model = RawFormatModelSpace(space, evaluator(options, steps, folder))
    strategy.initialize(model, SequentialExecutionEngine())
    return strategy.run


def plain(**settings: Any) -> SupernetStrategy:
    """Return a strategy without validation and recording."""
    return SupernetStrategy(validate=0, recalibrate_batches=0, record=False, **settings)


def step_cost(options: argparse.Namespace) -> dict[str, Any]:
    """Compare seconds of fair steps with those of as many uniform steps as they have draws, in turn."""
    draws = len(NASBENCH201_OPERATIONS)
    seconds: dict[str, list[float]] = {"fair": [], "uniform": []}
    for _ in range(options.rounds):
        watch, steps = Watch(), options.steps + 1
        with tempfile.TemporaryDirectory() as folder:

            def fair(turns: pl.Callback, watch: Watch = watch, steps: int = steps, folder: str = folder) -> Any:
                return prepared(options, plain(paths=FairPathSampler(), callbacks=[watch, turns]), steps, folder)

            def uniform(turns: pl.Callback, watch: Watch = watch, steps: int = steps, folder: str = folder) -> Any:
                replayed = plain(paths=Replay(watch.samples), callbacks=[turns])
                return prepared(options, replayed, draws * steps, folder)

            found = in_lockstep({"fair": fair, "uniform": uniform}, steps={"uniform": draws})
        for name, values in found.items():
            seconds[name] += values[1:]
    return {
        **compared(seconds["fair"], seconds["uniform"]),
        "draws_per_step": draws,
        "steps": len(seconds["fair"]),
    }


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count the most bytes that autograd keeps for backward passes, and the allocator's peak on a CUDA device."""
    count: dict[str, int] = {}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with KeptBytes() as kept:
        yield count
    count["peak"] = kept.peak
    if torch.cuda.is_available():
        count["allocated"] = torch.cuda.max_memory_allocated()


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Compare what a fair step keeps for backward passes with the largest of its draws alone."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        with counted() as fair:
            prepared(options, plain(paths=FairPathSampler(), callbacks=[watch]), 1, folder)()
        singles = []
        for sample in watch.samples:
            with counted() as single:
                prepared(options, plain(paths=Replay([sample])), 1, folder)()
            singles.append(single)
    largest = max(single["peak"] for single in singles)
    result = {"ratio": fair["peak"] / largest, "fair_bytes": fair["peak"], "largest_draw_bytes": largest}
    if torch.cuda.is_available():
        result["allocated_ratio"] = fair["allocated"] / max(single["allocated"] for single in singles)
    return result


def few_shot_cost(options: argparse.Namespace) -> dict[str, Any]:
    """Compare few-shot training of all sub-supernets with single-path trainings of the same paths, in turn."""
    parts, steps = len(NASBENCH201_OPERATIONS), options.steps + 1
    seconds: dict[str, list[float]] = {"few_shot": [], "alone": []}
    for _ in range(options.rounds):
        watch = Watch()
        with tempfile.TemporaryDirectory() as folder:

            def few_shot(turns: pl.Callback, watch: Watch = watch, folder: str = folder) -> Any:
                split = [ChoiceSplit("cell/0_1")]
                return prepared(options, FewShotStrategy(plain(callbacks=[watch, turns]), split), steps, folder)

            def alone(turns: pl.Callback, watch: Watch = watch, folder: str = folder) -> Any:
                trainings = [
                    prepared(
                        options, plain(paths=Replay(watch.samples, part * steps), callbacks=[turns]), steps, folder
                    )
                    for part in range(parts)
                ]
                return lambda: [training() for training in trainings]

            found = in_lockstep({"few_shot": few_shot, "alone": alone})
        for name, values in found.items():
            seconds[name] += [value for number, value in enumerate(values) if number % steps]
    return {**compared(seconds["few_shot"], seconds["alone"]), "parts": parts, "steps": len(seconds["alone"])}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for name, default in (
        ("steps", 12),
        ("rounds", 5),
        ("channels", 16),
        ("cells", 1),
        ("size", 32),
        ("batch", 64),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--only", choices=("step", "memory", "few_shot"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in ("pytorch_lightning", "lightning", "nni"):
        logging.getLogger(name).setLevel(logging.ERROR)
    parts = {"step": step_cost, "memory": memory, "few_shot": few_shot_cost}
    chosen = [options.only] if options.only else list(parts)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "one processor core"
    result: dict[str, Any] = {"settings": {**vars(options), "out": str(options.out)}, "device": device}
    for name in chosen:
        result[name] = parts[name](options)
        print(name, json.dumps(result[name]), flush=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
