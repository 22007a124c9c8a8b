"""What subnets reach without retraining after sandwich training with each divergence, on CIFAR-10.

    python benchmarks/sandwich_accuracy.py --data FOLDER --out benchmarks/results/sandwich_accuracy.jsonl
    python benchmarks/sandwich_accuracy.py --out benchmarks/results/sandwich_accuracy.jsonl --figures docs/figures

The first trains the small mobile space with cross entropy only, KL and the adaptive alpha-divergence on CIFAR-10
(`cifar10_small.npz`: uint8 images `x_train`, `x_valid` of shape (N, 32, 32, 3), labels `y_train`, `y_valid`), each
with several seeds, and evaluates the smallest, the largest and random subnets, the same for all, with BN statistics
of their own. It adds one JSON line a run and leaves out those that are there already, so several may run side by
side and a killed one goes on with the same command. With `--statistics 1,4,16,64`, some subnets of the supernets
trained with adaptive alpha are evaluated with that many batches of BN statistics too.

The second prints Markdown tables and draws box plots of all accuracies, and the costs of samplers' draws.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nni_supernet_ext  # noqa: F401 - before NNI: makes torchvision importable

import numpy as np  # isort: skip
import torch
from nni.nas.evaluator.pytorch import Classification
from sandwich import FLOPS, OBJECTIVES, prepare, small_supernet
from torch import Tensor
from torch.utils.data import TensorDataset

from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.core import PathSampler, SubnetEvaluator, SupernetCallback
from nni_supernet_ext.functional import kendall_tau
from nni_supernet_ext.paths import AttentivePathSampler, SandwichSampler, UniformPathSampler
from nni_supernet_ext.plots import plot_accuracy_boxes, plot_costs
from nni_supernet_ext.strategies import SupernetStrategy

_STATISTICS_OF = "adaptive alpha"
_BATCHES = 20
_MEAN, _STD = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])


class ChannelsLast(SupernetCallback):
    """Keep weights and activations in the memory format in which small networks run faster."""

    def prepare(self, plan: Any) -> None:
        """Convert the weights, which decide the format of the activations."""
        plan.supernet.model.to(memory_format=torch.channels_last)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, or show what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the images; trains")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figures", type=Path, help="folder for the figures; shows the results")
    parser.add_argument("--methods", nargs="+", default=list(OBJECTIVES), choices=list(OBJECTIVES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--subnets", type=int, default=40)
    parser.add_argument("--statistics", type=_numbers, default=[], help="numbers of batches, such as 1,4,16,64")
    parser.add_argument("--statistics-subnets", type=int, default=10)
    parser.add_argument("--accelerator", default="cpu")
    options = parser.parse_args(arguments)
    if (options.data is None) == (options.figures is None):
        parser.error("give --data to train or --figures to show the results")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    if options.data is not None:
        _train_all(options)
    else:
        _show(_read(options.out), options.figures)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _train_all(options: argparse.Namespace) -> None:
    """Train and evaluate every method with every seed that the results do not hold yet."""
    with np.load(options.data / "cifar10_small.npz") as arrays:
        train = _images(arrays["x_train"][: options.images], arrays["y_train"][: options.images])
        valid = _images(arrays["x_valid"], arrays["y_valid"])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    names = ("epochs", "images", "batch", "subnets", "accelerator")
    for seed in options.seeds:
        for method in options.methods:
            key = {"method": method, "seed": seed, **{name: getattr(options, name) for name in names}}
            if any(key.items() <= row.items() for row in _read(options.out)):
                print(f"{method} seed {seed}: in the results already", flush=True)
                continue
            start = time.perf_counter()
            strategy, evaluator = _trained(method, seed, train, valid, options)
            key["train_seconds"] = round(time.perf_counter() - start, 1)
            rows = _evaluated(strategy, evaluator, options.subnets, _BATCHES)
            line = {**key, **{name: [row[name] for row in rows] for name in ("flops", "val_acc", "val_loss")}}
            if options.statistics and method == _STATISTICS_OF:
                line["statistics"] = {
                    n: [row["val_acc"] for row in _evaluated(strategy, evaluator, options.statistics_subnets, n)]
                    for n in options.statistics
                }
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**line, "torch": torch.__version__}) + "\n")
            print(f"{method} seed {seed}: mean accuracy {statistics.mean(line['val_acc']):.4f}", flush=True)


def _trained(
    method: str, seed: int, train: TensorDataset, valid: TensorDataset, options: argparse.Namespace
) -> tuple[SupernetStrategy, Classification]:
    """Train one supernet; return it in its strategy, and the evaluator."""
    strategy = SupernetStrategy(
        paths=SandwichSampler(complexity=FLOPS),
        objective=OBJECTIVES[method](),
        callbacks=[CosineLR(warmup_iterations=20), ChannelsLast()],
        gradient_clip_val=1.0,
        gradient_clip_algorithm="value",
        seed=seed,
        validate=0,
        record=False,
    )
    evaluator = prepare(strategy, train, valid, options.epochs, options.batch, options.accelerator, seed)
    strategy.run()
    return strategy, evaluator


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


def _images(pixels: Any, labels: Any) -> TensorDataset:
    x: Tensor = (torch.from_numpy(pixels).float() / 255 - _MEAN) / _STD
    return TensorDataset(x.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels.astype(np.int64)))


def _read(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def _show(rows: Sequence[Mapping[str, Any]], figures: Path) -> None:
    """Print the tables and draw the figures."""
    if not rows:
        raise SystemExit("There are no results yet: train with --data first.")
    figures.mkdir(parents=True, exist_ok=True)
    by_method = {
        method: [row for row in rows if row["method"] == method] for method in {row["method"]: None for row in rows}
    }
    print(_accuracy_table(by_method), _statistics_table(rows), sep="\n\n")
    costs, accuracies = (
        {method: [value for row in found for value in row[key]] for method, found in by_method.items()}
        for key in ("flops", "val_acc")
    )
    seeds = len({row["seed"] for row in rows})
    title = f"CIFAR-10 subnets without retraining, {seeds} seeds"
    plot_accuracy_boxes(costs, accuracies, title=title).savefig(figures / "sandwich_boxes.png")
    plot_costs(_drawn_costs()).savefig(figures / "sandwich_draws.png")


def _accuracy_table(by_method: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return accuracies in percent: mean and standard deviation over seeds."""
    lines = ["| objective | seeds | smallest | largest | random, mean | less CE's, by seed |", "|---" * 6 + "|"]
    plain = {row["seed"]: _random_mean(row) for row in by_method.get("CE", [])}
    for method, rows in by_method.items():
        columns = [
            *([100 * row["val_acc"][i] for row in rows] for i in (0, 1)),
            [_random_mean(row) for row in rows],
        ]
        shared = [row for row in rows if method != "CE" and row["seed"] in plain]
        gains = ", ".join(f"{_random_mean(row) - plain[row['seed']]:+.1f}" for row in shared)
        lines.append(f"| {method} | {len(rows)} | {' | '.join(map(_mean_sd, columns))} | {gains} |")
    return "\n".join(lines)


def _random_mean(row: Mapping[str, Any]) -> float:
    return 100 * statistics.mean(row["val_acc"][2:])


def _mean_sd(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _statistics_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how accuracies change with the batches that BN statistics are estimated from, mean over seeds."""
    found = [{int(n): values for n, values in row["statistics"].items()} for row in rows if "statistics" in row]
    if not found:
        return ""
    lines = [
        "| batches of BN statistics | mean accuracy | mean distance to the most batches' | tau with theirs |",
        "|---|---|---|---|",
    ]
    for n in sorted(found[0]):
        pairs = [(one[n], one[max(one)]) for one in found if n in one]
        mean = 100 * statistics.mean(statistics.mean(values) for values, _ in pairs)
        distance = 100 * statistics.mean(abs(a - b) for v, most in pairs for a, b in zip(v, most, strict=True))
        tau = statistics.mean(kendall_tau(values, most) for values, most in pairs)
        lines.append(f"| {n} | {mean:.1f} | {distance:.2f} | {tau:.2f} |")
    return "\n".join(lines)


def _drawn_costs() -> dict[str, list[float]]:
    """Return the costs of 2,000 draws by uniform sampling and by both priors of attentive sampling."""
    plan: Any = type("Plan", (), {"supernet": small_supernet(), "seed": 0})
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


if __name__ == "__main__":
    main()
