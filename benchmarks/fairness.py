"""What strict fairness and few-shot training cost, against uniform single-path training.

    python benchmarks/fairness.py --out fairness.json [--steps 12] [--rounds 5] [--channels 16] [--cells 1]

1. A FairNAS step against n uniform steps: seconds of training. n is the number of draws in a fair step. Both train
   the very same paths: the uniform run is given the fair run's draws one a step, on the same batches, so that the
   difference is that of the methods and not of the paths. The uniform run makes n optimizer steps where the fair
   one makes one; the expectation is at most 1.02.
2. Memory kept for backward passes: the most bytes that autograd holds at once in a fair step, against the largest
   single draw of it, and on a CUDA device the allocator's peak; the expectation is at most 1.05.
3. Few-shot training of K sub-supernets against K single-path trainings of the same numbers of steps and the same
   paths; the expectation is 1.0. Seconds are those of the steps; "everything" adds what is done once per training.

Runs alternate, and the median of the rounds' ratios is reported, with every round. Seconds are those of the
processor on a processor, and of the clock on a CUDA device.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nni_supernet_ext  # noqa: F401 - before anything that imports NNI

import numpy as np  # isort: skip
import torch  # isort: skip
from kept_bytes import KeptBytes  # isort: skip
from nni.nas.evaluator.pytorch import Classification, DataLoader  # isort: skip
from nni.nas.execution import SequentialExecutionEngine  # isort: skip
from nni.nas.space import RawFormatModelSpace  # isort: skip
from torch.utils.data import TensorDataset  # isort: skip

from nni_supernet_ext.core import Draw, PathSampler, SupernetCallback  # isort: skip
from nni_supernet_ext.paths import FairPathSampler  # isort: skip
from nni_supernet_ext.spaces import nasbench201  # isort: skip
from nni_supernet_ext.strategies import ChoiceSplit, FewShotStrategy, SupernetStrategy  # isort: skip


class Replay(PathSampler):
    """Train given samples, one a step."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = samples

    def draws(self, rng: np.random.Generator, state: Any) -> Sequence[Draw]:
        """Return the step's sample."""
        return (Draw(self.samples[state.iteration]),)


class Watch(SupernetCallback):
    """Record the draws, and the seconds from the first step's start to the last one's end."""

    def __init__(self, skip: int) -> None:
        self.skip = skip
        self.samples: list[Any] = []
        self.start = self.end = 0.0

    def on_draws(self, state: Any) -> None:
        """Start the clock after the warm-up steps."""
        if state.iteration == self.skip:
            self.start = _now()
        self.samples += [dict(draw.sample) for draw in state.draws]

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop the clock."""
        self.end = _now()


def _now() -> float:
    """Read the clock on an accelerator; on a processor, its own seconds: other programs do not disturb them."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


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


def train(options: argparse.Namespace, strategy: Any, steps: int) -> float:
    """Train a new space and return all seconds, initialization of the strategy included."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        space = nasbench201(options.channels, options.cells)
        made = evaluator(options, steps, folder)
        start = _now()
        strategy.initialize(RawFormatModelSpace(space, made), SequentialExecutionEngine())
        strategy.run()
        return _now() - start


def plain(**settings: Any) -> SupernetStrategy:
    """Return a strategy without validation and recording."""
    return SupernetStrategy(validate=0, recalibrate_batches=0, record=False, **settings)


def step_cost(options: argparse.Namespace) -> dict[str, Any]:
    """Compare seconds of fair steps with those of as many uniform steps as they have draws."""
    ratios, rounds = [], []
    for _ in range(options.rounds):
        fair = Watch(skip=1)
        train(options, plain(paths=FairPathSampler(), callbacks=[fair]), options.steps + 1)
        draws = len(fair.samples) // (options.steps + 1)
        uniform = Watch(skip=draws)
        train(options, plain(paths=Replay(fair.samples), callbacks=[uniform]), draws * (options.steps + 1))
        seconds = (fair.end - fair.start, uniform.end - uniform.start)
        ratios.append(seconds[0] / seconds[1])
        rounds.append({"fair_seconds": seconds[0], "uniform_seconds": seconds[1], "draws_per_step": draws})
    return {"ratio": statistics.median(ratios), "ratios": ratios, "rounds": rounds}


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
    watch = Watch(skip=0)
    with counted() as fair:
        train(options, plain(paths=FairPathSampler(), callbacks=[watch]), 1)
    singles = []
    for sample in watch.samples:
        with counted() as single:
            train(options, plain(paths=Replay([sample])), 1)
        singles.append(single)
    largest = max(single["peak"] for single in singles)
    result = {"ratio": fair["peak"] / largest, "fair_bytes": fair["peak"], "largest_draw_bytes": largest}
    if torch.cuda.is_available():
        result["allocated_ratio"] = fair["allocated"] / max(single["allocated"] for single in singles)
    return result


def few_shot_cost(options: argparse.Namespace) -> dict[str, Any]:
    """Compare few-shot training of all sub-supernets with as many single-path trainings of the same paths."""
    ratios, rounds = [], []
    for _ in range(options.rounds):
        strategy = FewShotStrategy(plain(callbacks=[Watch(skip=1)]), [ChoiceSplit("cell/0_1")])
        everything = train(options, strategy, options.steps + 1)
        parts = [watch for part in strategy.part_callbacks.values() for watch in part if isinstance(watch, Watch)]
        alone, alone_everything = [], 0.0
        for part in parts:
            watch = Watch(skip=1)
            strategy_alone = plain(paths=Replay(part.samples), callbacks=[watch])
            alone_everything += train(options, strategy_alone, options.steps + 1)
            alone.append(watch.end - watch.start)
        few = sum(part.end - part.start for part in parts)
        ratios.append(few / sum(alone))
        rounds.append(
            {
                "few_shot_seconds": few,
                "alone_seconds": sum(alone),
                "few_shot_everything": everything,
                "alone_everything": alone_everything,
                "parts": len(parts),
            }
        )
    return {"ratio": statistics.median(ratios), "ratios": ratios, "rounds": rounds}


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
