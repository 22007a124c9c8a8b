"""What a sandwich step costs, and what sandwich training with each divergence reaches without retraining.

    python benchmarks/sandwich.py cost                                  # time and memory against four plain steps
    python benchmarks/sandwich.py accuracy --data FOLDER --out runs     # CIFAR-10, several seeds, box plots

`cost` trains the small mobile space on random images. Every contender sees the same subnets; a plain contender
takes one subnet a step, so four of its steps stand against one sandwich step. All make their steps in turn; times
are processor times of one thread, on a GPU those of the clock: the ratio of all together, and median and quartiles.
Memory: on a GPU the peak that the allocator saw; on the CPU the peak of what is kept for backward passes, which is
what several draws could multiply.

`accuracy` trains on CIFAR-10 (`cifar10_small.npz`: uint8 images `x_train`, `x_valid` of shape (N, 32, 32, 3),
labels `y_train`, `y_valid`) with cross entropy only, KL and the adaptive alpha-divergence, evaluates random subnets
with their own BN statistics, and writes one JSON line a subnet, the box plot, and the costs of the draws. With
`--statistics 1,4,16,64` it evaluates some subnets of every seed's last supernet with that many batches of BN
statistics, and writes how far their accuracies are from those with the most batches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
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

from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.core import Draw, PathSampler, SubnetEvaluator
from nni_supernet_ext.functional import kendall_tau, weights_only_decay
from nni_supernet_ext.objectives import InplaceDistillation, TaskLoss
from nni_supernet_ext.paths import AttentivePathSampler, SandwichSampler, UniformPathSampler
from nni_supernet_ext.plots import plot_accuracy_boxes, plot_costs
from nni_supernet_ext.spaces import attentive_mobilenet_cifar, attentive_mobilenet_flops
from nni_supernet_ext.spaces.attentive_mobilenet import CIFAR_STAGES
from nni_supernet_ext.strategies import SupernetStrategy

FLOPS = attentive_mobilenet_flops(CIFAR_STAGES, n_classes=10, stem_stride=1)
OBJECTIVES = {
    "CE": TaskLoss,
    "KL": partial(InplaceDistillation, "kl", beta=1.0),
    "adaptive alpha": partial(InplaceDistillation, "adaptive_alpha", beta=1.0),
}
_WARMUP = 3
_MEAN, _STD = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])


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
    """Run one of the two benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("cost")
    cost.add_argument("--rounds", type=int, default=7)
    cost.add_argument("--steps", type=int, default=12)
    cost.add_argument("--batch", type=int, default=32)
    cost.add_argument("--accelerator", default="cpu")
    accuracy = commands.add_parser("accuracy")
    accuracy.add_argument("--data", type=Path, required=True)
    accuracy.add_argument("--out", type=Path, required=True)
    accuracy.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    accuracy.add_argument("--epochs", type=int, default=30)
    accuracy.add_argument("--images", type=int, default=5000)
    accuracy.add_argument("--subnets", type=int, default=60)
    accuracy.add_argument("--batch", type=int, default=64)
    accuracy.add_argument("--accelerator", default="cpu")
    accuracy.add_argument("--statistics", type=_numbers, default=[], help="numbers of batches, such as 1,4,16,64")
    accuracy.add_argument("--statistics-subnets", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    {"cost": measure_cost, "accuracy": measure_accuracy}[arguments.command](arguments)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


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
        **{key: value for key, value in vars(arguments).items() if key != "command"},
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
    supernet = _supernet()
    sampler, rng = SandwichSampler(complexity=FLOPS), np.random.default_rng(0)
    sampler.prepare(type("Plan", (), {"supernet": supernet, "seed": 0}))  # type: ignore[arg-type]
    return [list(sampler.draws(rng, None)) for _ in range(steps)]  # type: ignore[arg-type]


def _supernet() -> Any:
    from nni_supernet_ext.testing import toy_supernet

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
    _prepare(strategy, data, data, 1, arguments, 0, enable_checkpointing=False)
    return strategy.run


def measure_accuracy(arguments: argparse.Namespace) -> None:
    """Train every method with every seed, and write results and figures."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    with np.load(arguments.data / "cifar10_small.npz") as arrays:
        train = _images(arrays["x_train"][: arguments.images], arrays["y_train"][: arguments.images])
        valid = _images(arrays["x_valid"], arrays["y_valid"])
    costs: dict[str, list[float]] = {name: [] for name in OBJECTIVES}
    accuracies: dict[str, list[float]] = {name: [] for name in OBJECTIVES}
    with (arguments.out / "subnets.jsonl").open("w", encoding="utf-8") as file:
        for seed in arguments.seeds:
            for name in OBJECTIVES:
                strategy, evaluator, seconds = _trained(name, seed, train, valid, arguments)
                for row in _evaluated(strategy, evaluator, arguments.subnets, recalibrate_batches=20):
                    file.write(json.dumps({"method": name, "seed": seed, "seconds": seconds, **row}) + "\n")
                    file.flush()
                    costs[name].append(row["flops"])
                    accuracies[name].append(row["val_acc"])
                print(f"seed {seed} {name}: mean {statistics.mean(accuracies[name]):.4f}", flush=True)
            if arguments.statistics:
                found = _by_statistics(strategy, evaluator, arguments)
                _append(arguments.out / "statistics.jsonl", {"method": name, "seed": seed, **found})
    title = f"CIFAR-10 subnets without retraining, {len(arguments.seeds)} seeds"
    plot_accuracy_boxes(costs, accuracies, title=title).savefig(arguments.out / "boxes.png")
    plot_costs(_drawn_costs()).savefig(arguments.out / "draws.png")


def _trained(
    name: str, seed: int, train: TensorDataset, valid: TensorDataset, arguments: argparse.Namespace
) -> tuple[SupernetStrategy, Classification, float]:
    """Train one supernet; return it in its strategy, the evaluator, and the seconds it took."""
    strategy = SupernetStrategy(
        paths=SandwichSampler(complexity=FLOPS),
        objective=OBJECTIVES[name](),
        callbacks=[CosineLR(warmup_iterations=20)],
        gradient_clip_val=1.0,
        gradient_clip_algorithm="value",
        seed=seed,
        validate=0,
        record=False,
    )
    start = time.perf_counter()
    evaluator = _prepare(strategy, train, valid, arguments.epochs, arguments, seed, limit_val_batches=0)
    strategy.run()
    return strategy, evaluator, round(time.perf_counter() - start, 1)


def _evaluated(
    strategy: SupernetStrategy, evaluator: Classification, subnets: int, recalibrate_batches: int
) -> list[dict[str, Any]]:
    """Evaluate the smallest, the largest and random subnets, the same for all supernets."""
    subnet_evaluator = SubnetEvaluator(
        strategy.trained,
        evaluator.module,
        evaluator.val_dataloaders,
        calibration=evaluator.train_dataloaders,
        recalibrate_batches=recalibrate_batches,
    )
    rng = np.random.default_rng(0)
    domain = strategy.trained.domain
    extremes = strategy.paths.extremes  # type: ignore[attr-defined]
    samples = [extremes.smallest, extremes.largest, *(domain.random(rng) for _ in range(subnets))]
    return [{"flops": FLOPS(sample), **subnet_evaluator.evaluate(sample)} for sample in samples]


def _by_statistics(
    strategy: SupernetStrategy, evaluator: Classification, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Compare accuracies by how many batches the BN statistics are estimated from."""
    found = {
        batches: [row["val_acc"] for row in _evaluated(strategy, evaluator, arguments.statistics_subnets, batches)]
        for batches in arguments.statistics
    }
    most = found[max(found)]
    return {
        "mean": {n: round(statistics.mean(accuracies), 4) for n, accuracies in found.items()},
        "mean_distance": {
            n: round(statistics.mean(abs(a - b) for a, b in zip(accuracies, most, strict=True)), 4)
            for n, accuracies in found.items()
        },
        "tau": {n: round(kendall_tau(accuracies, most), 3) for n, accuracies in found.items()},
    }


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _drawn_costs() -> dict[str, list[float]]:
    """Return the costs of 2,000 draws by uniform sampling and by both priors of attentive sampling."""
    plan: Any = type("Plan", (), {"supernet": _supernet(), "seed": 0})
    samplers: dict[str, PathSampler] = {
        "uniform": UniformPathSampler(),
        "attentive, empirical prior": AttentivePathSampler(n_candidates=1, complexity=FLOPS),
        "attentive, uniform prior": AttentivePathSampler(n_candidates=1, complexity=FLOPS, prior="uniform"),
    }
    costs = {}
    for name, sampler in samplers.items():
        sampler.prepare(plan)
        rng = np.random.default_rng(0)
        costs[name] = [FLOPS(sampler.draws(rng, None)[0].sample) for _ in range(2000)]  # type: ignore[arg-type]
    return costs


def _images(pixels: Any, labels: Any) -> TensorDataset:
    x = (torch.from_numpy(pixels).float() / 255 - _MEAN) / _STD
    return TensorDataset(x.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels.astype(np.int64)))


def _prepare(
    strategy: SupernetStrategy,
    train: TensorDataset,
    valid: TensorDataset,
    epochs: int,
    arguments: argparse.Namespace,
    seed: int,
    **trainer: Any,
) -> Classification:
    """Set up the training of the small mobile space with SGD."""
    shuffled = epochs > 1
    evaluator = Classification(
        learning_rate=0.1 * arguments.batch / 128,
        weight_decay=1e-4,
        optimizer=weights_only_decay(torch.optim.SGD, momentum=0.9, nesterov=True),
        train_dataloaders=DataLoader(
            train, arguments.batch, shuffle=shuffled, generator=torch.Generator().manual_seed(seed), drop_last=True
        ),
        val_dataloaders=DataLoader(valid, 250),
        num_classes=10,
        export_onnx=False,
        max_epochs=epochs,
        accelerator=arguments.accelerator,
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
