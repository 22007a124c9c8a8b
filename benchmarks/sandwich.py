"""What a sandwich step costs in time and memory, against four plain steps on the same subnets.

    python benchmarks/sandwich.py

Trains the small mobile space on random images. Every contender sees the same subnets; a plain contender takes one
subnet a step, so four of its steps stand against one sandwich step. All make their steps in turn; times are
processor times of one thread, on a GPU those of the clock: the ratio of all together, and median and quartiles.
Memory: on a GPU the peak that the allocator saw; on the CPU the peak of what is kept for backward passes, which is
what several draws could multiply.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import nni_supernet_ext  # noqa: F401 - before NNI: makes torchvision importable

import numpy as np  # isort: skip
import pytorch_lightning as pl
import torch
from kept_bytes import KeptBytes
from lockstep import compared, in_lockstep
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import TensorDataset

from nni_supernet_ext.core import Draw, Objective, PathSampler, Supernet
from nni_supernet_ext.functional import weights_only_decay
from nni_supernet_ext.objectives import InplaceDistillation, TaskLoss
from nni_supernet_ext.paths import SandwichSampler
from nni_supernet_ext.spaces import attentive_mobilenet_cifar, attentive_mobilenet_flops
from nni_supernet_ext.spaces.attentive_mobilenet import CIFAR_STAGES
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import toy_supernet

FLOPS = attentive_mobilenet_flops(CIFAR_STAGES, n_classes=10, stem_stride=1)
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "CE": TaskLoss,
    "KL": partial(InplaceDistillation, "kl", beta=1.0),
    "adaptive alpha": partial(InplaceDistillation, "adaptive_alpha", beta=1.0),
}
_WARMUP = 3


class Given(PathSampler):
    """Draw given lists of subnets, one list a step."""

    def __init__(self, steps: list[list[Draw]]) -> None:
        self.steps = steps
        self.draws_per_step = len(steps[0])
        self.roles = tuple(draw.role for draw in steps[0])

    def draws(self, rng: np.random.Generator, state: Any) -> list[Draw]:
        """Return the list of this step."""
        return self.steps[state.iteration]


class Meter(pl.Callback):
    """Measure the peak of memory in one step.

    Args:
        step: Number of the step.
    """

    def __init__(self, step: int) -> None:
        self.step, self.peak = step, 0
        self._kept = KeptBytes()

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Begin to watch."""
        if batch_idx != self.step:
            return
        if module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)
        else:
            self._kept.__enter__()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Read the peak."""
        if batch_idx != self.step:
            return
        if module.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(module.device)
        else:
            self._kept.__exit__()
            self.peak = self._kept.peak


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--accelerator", default="cpu")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    measure_cost(parser.parse_args())


def measure_cost(arguments: argparse.Namespace) -> None:
    """Print the ratios of time and memory as a line of JSON."""
    steps = arguments.steps + _WARMUP
    sandwiches = _sandwiches(steps)
    draws = {
        "four plain steps": [[Draw(draw.sample)] for step in sandwiches for draw in step],
        "largest only": [[Draw(sandwiches[0][0].sample)]] * steps,
        **{f"sandwich {name}": sandwiches for name in OBJECTIVES},
    }
    turns: dict[str, list[float]] = {name: [] for name in draws}
    peaks: dict[str, int] = {}
    for _ in range(arguments.rounds):
        meters = {name: Meter(1) for name in draws}
        contenders = {
            name: partial(_contender, arguments, given, name.removeprefix("sandwich "), meters[name])
            for name, given in draws.items()
        }
        for name, seconds in in_lockstep(contenders, steps={"four plain steps": 4}).items():
            turns[name] += seconds[_WARMUP:]
        peaks = {name: meter.peak for name, meter in meters.items()}
    plain = turns["four plain steps"]
    result = {
        "benchmark": "sandwich cost",
        **vars(arguments),
        "ms": {name: round(1e3 * statistics.median(values), 2) for name, values in turns.items()},
        "time_ratio": {
            name: {key: round(value, 3) for key, value in compared(values, plain).items()}
            for name, values in turns.items()
        },
        "memory_ratio_to_largest": {
            name: round(peaks[name] / peaks["largest only"], 3) for name in peaks if name.startswith("sandwich")
        },
        "torch": torch.__version__,
    }
    print(json.dumps(result))


def _sandwiches(steps: int) -> list[list[Draw]]:
    """Draw the subnets that all contenders train."""
    supernet = small_supernet()
    sampler, rng = SandwichSampler(complexity=FLOPS), np.random.default_rng(0)
    sampler.prepare(type("Plan", (), {"supernet": supernet, "seed": 0}))  # type: ignore[arg-type]
    return [list(sampler.draws(rng, None)) for _ in range(steps)]  # type: ignore[arg-type]


def small_supernet() -> Supernet:
    """Return the supernet of the small mobile space."""
    return toy_supernet(attentive_mobilenet_cifar())


def _contender(
    arguments: argparse.Namespace, steps: list[list[Draw]], objective: str, meter: Meter, turns: pl.Callback
) -> Callable[[], None]:
    """Set up the training of given subnets on random images."""
    n = arguments.batch * len(steps)
    data = TensorDataset(torch.randn(n, 3, 32, 32), torch.randint(10, (n,)))
    strategy = SupernetStrategy(
        paths=Given(steps),
        objective=OBJECTIVES.get(objective, TaskLoss)(),
        callbacks=[meter, turns],
        validate=0,
        recalibrate_batches=0,
        record=False,
    )
    prepare(strategy, data, data, 1, arguments.batch, arguments.accelerator, 0, enable_checkpointing=False)
    return strategy.run


def prepare(
    strategy: SupernetStrategy,
    train: TensorDataset,
    valid: TensorDataset,
    epochs: int,
    batch: int,
    accelerator: str,
    seed: int,
    **trainer: Any,
) -> Classification:
    """Set up the training of the small mobile space with SGD."""
    shuffled = epochs > 1
    evaluator = Classification(
        learning_rate=0.1 * batch / 128,
        weight_decay=1e-4,
        optimizer=weights_only_decay(torch.optim.SGD, momentum=0.9, nesterov=True),
        train_dataloaders=DataLoader(
            train, batch, shuffle=shuffled, generator=torch.Generator().manual_seed(seed), drop_last=True
        ),
        val_dataloaders=DataLoader(valid, 250),
        num_classes=10,
        export_onnx=False,
        max_epochs=epochs,
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tempfile.mkdtemp(),
        **{"limit_val_batches": 0, **trainer},
    )
    pl.seed_everything(seed, verbose=False)
    model = RawFormatModelSpace(attentive_mobilenet_cifar(), evaluator)
    strategy.initialize(model, SequentialExecutionEngine())
    return evaluator


if __name__ == "__main__":
    main()
