"""Time a training step against NNI's RandomOneShot and a bare PyTorch loop over the same draws.

Every contender trains the same NAS-Bench-201 supernet on the same batches and subnets, in turn, several rounds; the
result is the median over rounds of the ratio of step times within a round. One thread; processor time, so that
other programs disturb less:

    python benchmarks/overhead.py                 # both scales
    python benchmarks/overhead.py --scale tiny --rounds 3
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import nni_supernet_ext  # noqa: F401 - before NNI: makes torchvision importable

import numpy as np  # isort: skip
import pytorch_lightning as pl
import torch
from nni.mutable import mutable as nni_mutable
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import RandomOneShot
from torch.utils.data import TensorDataset

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.core import Draw, PathSampler, Supernet
from nni_supernet_ext.paths import UniformPathSampler
from nni_supernet_ext.spaces import nasbench201
from nni_supernet_ext.strategies import SupernetStrategy


@dataclass(frozen=True)
class Scale:
    """Size of the supernet and of the data."""

    channels: int
    cells: int
    image: int
    batch: int
    steps: int
    warmup: int


SCALES = {"tiny": Scale(4, 1, 8, 16, 250, 30), "normal": Scale(16, 5, 32, 64, 7, 1)}


class SeededStates:
    """Stand in for numpy's RandomState inside NNI, so that its draws can be repeated."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, seed: int | None = None) -> np.random.RandomState:
        self.count += 1
        return np.random.RandomState(self.count if seed is None else seed)


class Replay(PathSampler):
    """Draw as usual, then train the recorded subnet instead: the cost of drawing is paid."""

    def __init__(self, samples: Sequence[dict[str, str]]) -> None:
        self.samples = samples
        self.uniform = UniformPathSampler()

    def prepare(self, plan):
        """Prepare the sampler whose cost is paid."""
        self.uniform.prepare(plan)

    def draws(self, rng, state):
        """Return the recorded draw of this step."""
        self.uniform.draws(rng, state)
        return (Draw(self.samples[state.iteration]),)


class Timer(pl.Callback):
    """Time the steps after the warm-up."""

    def __init__(self, scale: Scale) -> None:
        self.scale, self.seconds = scale, 0.0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        """Start after the warm-up."""
        if batch_idx == self.scale.warmup:
            self.start = time.process_time()

    def on_train_epoch_end(self, trainer, module):
        """Stop after the last step."""
        self.seconds = (time.process_time() - self.start) / (self.scale.steps - self.scale.warmup)


def main() -> None:
    """Run the benchmark and print a line of JSON and a row for each contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=[*SCALES, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", help="append the results to this file, as JSON lines")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    names = SCALES if arguments.scale == "all" else [arguments.scale]
    for name in names:
        result = measure(name, SCALES[name], arguments.rounds)
        print(json.dumps(result))
        if arguments.out:
            with open(arguments.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")


def measure(name: str, scale: Scale, rounds: int) -> dict[str, object]:
    """Run all contenders in turn and return the ratios between them."""
    data = TensorDataset(
        torch.randn(scale.batch * scale.steps, 3, scale.image, scale.image),
        torch.randint(10, (scale.batch * scale.steps,)),
    )
    samples = _draws_of_nni(scale)
    contenders: dict[str, Callable[[], float]] = {
        "bare": lambda: _bare(scale, data, samples),
        "nni": lambda: _lightning(scale, data, RandomOneShot()),
        "ours": lambda: _lightning(scale, data, _ours(samples)),
        "ours_calr_ms": lambda: _lightning(scale, data, _ours(samples, ComplexityAwareLR(), MomentumSeparation())),
    }
    times: dict[str, list[float]] = {key: [] for key in contenders}
    for number in range(rounds):
        order = list(contenders) if number % 2 == 0 else list(reversed(contenders))
        for key in order:
            times[key].append(contenders[key]())
            print(f"{name} round {number + 1}/{rounds} {key}: {1e3 * times[key][-1]:.2f} ms", file=sys.stderr)
    pairs = [("ours", "nni"), ("ours", "bare"), ("nni", "bare"), ("ours_calr_ms", "ours")]
    ratios = {f"{a}/{b}": [x / y for x, y in zip(times[a], times[b], strict=True)] for a, b in pairs}
    return {
        "benchmark": "overhead",
        "scale": name,
        **vars(scale),
        "rounds": rounds,
        "ms": {key: round(1e3 * statistics.median(values), 3) for key, values in times.items()},
        "ratio": {key: round(statistics.median(values), 3) for key, values in ratios.items()},
        "ratio_range": {key: [round(min(v), 3), round(max(v), 3)] for key, v in ratios.items()},
        "torch": torch.__version__,
    }


def _space(scale: Scale):
    torch.manual_seed(0)
    return nasbench201(channels=scale.channels, cells_per_stage=scale.cells)


def _draws_of_nni(scale: Scale) -> list[dict[str, str]]:
    """Return the subnets that NNI will draw, so that the others train the same ones."""
    nni_mutable.RandomState = SeededStates()
    module = RandomOneShot().configure_oneshot_module(_evaluator(scale, TensorDataset(torch.zeros(1))).module)
    module.training_module.set_model(RandomOneShot().mutate_model(_space(scale)))
    return [dict(module.resample()) for _ in range(scale.steps)]


def _evaluator(scale: Scale, data: TensorDataset) -> Classification:
    return Classification(
        learning_rate=0.025,
        weight_decay=5e-4,
        optimizer=functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        train_dataloaders=DataLoader(data, batch_size=scale.batch),
        val_dataloaders=DataLoader(data, batch_size=scale.batch),
        num_classes=10,
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=tempfile.gettempdir(),
    )


def _ours(samples: Sequence[dict[str, str]], *callbacks: pl.Callback) -> SupernetStrategy:
    return SupernetStrategy(paths=Replay(samples), callbacks=callbacks, validate=0, recalibrate_batches=0)


def _lightning(scale: Scale, data: TensorDataset, strategy) -> float:
    evaluator, timer = _evaluator(scale, data), Timer(scale)
    evaluator.trainer.callbacks.append(timer)
    nni_mutable.RandomState = SeededStates()
    strategy(RawFormatModelSpace(_space(scale), evaluator), SequentialExecutionEngine())
    return timer.seconds


def _bare(scale: Scale, data: TensorDataset, samples: Sequence[dict[str, str]]) -> float:
    """The loop one writes by hand: draw, activate, forward, backward, step; no metrics, no logging."""
    space = SupernetStrategy().mutate_model(_space(scale))
    supernet, rng, start = Supernet(space), np.random.default_rng(0), 0.0
    optimizer = torch.optim.SGD(space.parameters(), lr=0.025, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for step, (x, y) in enumerate(DataLoader(data, batch_size=scale.batch)):
        if step == scale.warmup:
            start = time.process_time()
        supernet.domain.random(rng)
        supernet.activate(samples[step])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(space(x), y).backward()
        optimizer.step()
    return (time.process_time() - start) / (scale.steps - scale.warmup)


if __name__ == "__main__":
    main()
