"""Time a training step against NNI's RandomOneShot and a bare PyTorch loop over the same draws.

Every contender trains the same NAS-Bench-201 supernet on the same batches and subnets, step by step in turn. One
thread, processor time. The result is the ratio of all steps together, and median and quartiles of the ratios of
single steps:

    python benchmarks/overhead.py                 # both scales
    python benchmarks/overhead.py --scale tiny --rounds 1
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import nni_supernet_ext  # noqa: F401 - before NNI: makes torchvision importable

import numpy as np  # isort: skip
import pytorch_lightning as pl
import torch
from lockstep import Turns, compared, in_lockstep
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


Contender = Callable[[Turns], Callable[[], None]]
SCALES = {"tiny": Scale(4, 1, 8, 16, 200, 30), "normal": Scale(16, 5, 32, 64, 12, 1)}


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


def main() -> None:
    """Run the benchmark and print a line of JSON and a row for each contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=[*SCALES, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=2)
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
    samples, draws_made = _draws_of_nni(scale)
    contenders: dict[str, Contender] = {
        "bare": lambda turns: functools.partial(_bare, scale, data, samples, turns),
        "nni": lambda turns: _nni(scale, data, turns, expected=draws_made),
        "ours": lambda turns: _ours(scale, data, samples, turns),
        "ours_calr_ms": lambda turns: _ours(scale, data, samples, turns, ComplexityAwareLR(), MomentumSeparation()),
    }
    times: dict[str, list[float]] = {key: [] for key in contenders}
    for number in range(rounds):
        order = list(contenders) if number % 2 == 0 else list(reversed(contenders))
        for key, seconds in in_lockstep({key: contenders[key] for key in order}).items():
            times[key] += seconds[scale.warmup :]
    pairs = [("ours", "nni"), ("ours", "bare"), ("nni", "bare"), ("ours_calr_ms", "ours")]
    return {
        "benchmark": "overhead",
        "scale": name,
        **vars(scale),
        "rounds": rounds,
        "ms": {key: round(1e3 * statistics.median(values), 3) for key, values in times.items()},
        "ratio": {
            f"{a}/{b}": {key: round(value, 3) for key, value in compared(times[a], times[b]).items()}
            for a, b in pairs
        },
        "torch": torch.__version__,
    }


def _space(scale: Scale):
    torch.manual_seed(0)
    return nasbench201(channels=scale.channels, cells_per_stage=scale.cells)


def _draws_of_nni(scale: Scale) -> tuple[list[dict[str, str]], int]:
    """Return the subnets that NNI will draw, for the others to train, and how many random states it takes."""
    nni_mutable.RandomState = states = SeededStates()
    module = RandomOneShot().configure_oneshot_module(_evaluator(scale, TensorDataset(torch.zeros(1))).module)
    module.training_module.set_model(RandomOneShot().mutate_model(_space(scale)))
    return [dict(module.resample()) for _ in range(scale.steps)], states.count


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


def _ours(
    scale: Scale, data: TensorDataset, samples: Sequence[dict[str, str]], turns: Turns, *callbacks: pl.Callback
) -> Callable[[], None]:
    strategy = SupernetStrategy(
        paths=Replay(samples), callbacks=[*callbacks, turns], validate=0, recalibrate_batches=0, record=False
    )
    strategy.initialize(RawFormatModelSpace(_space(scale), _evaluator(scale, data)), SequentialExecutionEngine())
    return strategy.run


def _nni(scale: Scale, data: TensorDataset, turns: Turns, expected: int) -> Callable[[], None]:
    evaluator, strategy = _evaluator(scale, data), RandomOneShot()
    evaluator.trainer.callbacks.append(turns)
    strategy.initialize(RawFormatModelSpace(_space(scale), evaluator), SequentialExecutionEngine())

    def train() -> None:
        nni_mutable.RandomState = states = SeededStates()
        strategy.run()
        if states.count != expected:
            raise RuntimeError(
                f"NNI is expected to draw from {expected} random states, but drew from {states.count}."
            )

    return train


def _bare(scale: Scale, data: TensorDataset, samples: Sequence[dict[str, str]], turns: Turns) -> None:
    """The loop one writes by hand: draw, activate, forward, backward, step; no metrics, no logging."""
    space = SupernetStrategy().mutate_model(_space(scale))
    supernet, rng = Supernet(space), np.random.default_rng(0)
    optimizer = torch.optim.SGD(space.parameters(), lr=0.025, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for step, (x, y) in enumerate(DataLoader(data, batch_size=scale.batch)):
        turns.on_train_batch_start(None, None, (x, y), step)
        supernet.domain.random(rng)
        supernet.activate(samples[step])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(space(x), y).backward()
        optimizer.step()
    turns.on_train_end(None, None)


if __name__ == "__main__":
    main()
