"""What importance sampling of paths and data costs, and what it does to the gradients' variance.

    python benchmarks/importance.py time --out time.json [--channels 8] [--size 16] [--batch 64] [--rounds 3]
    python benchmarks/importance.py variance --data FOLDER --out variance.json [--epochs 20] [--seeds 3]

`time` trains NAS-Bench-201 (one cell per stage) with SPOS and with PA, DA and PA&DA, step by step in turn, for two
epochs. All train the same paths on the same batches: with shares of 0, everything is measured, averaged and turned
into distributions, and the draws stay the uniform ones. So the difference is the methods' own time, not that of
other paths. Reported are the ratios of processor time, of all steps together and of single steps (median and
quartiles), and the share of processor time that is spent inside the methods' own hooks. The expectation is at most
1.05 for PA&DA.

`variance` trains SPOS, PA, DA and PA&DA with the linear shares on real images (`cifar10_small.npz` in FOLDER) and
records the supernet's gradient variance per epoch, in a JSON file and a figure beside it.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nni_supernet_ext  # noqa: F401 - before anything that imports NNI

import numpy as np  # isort: skip
import pytorch_lightning as pl  # isort: skip
import torch  # isort: skip
from lockstep import compared, in_lockstep  # isort: skip
from nni.nas.evaluator.pytorch import Classification, DataLoader  # isort: skip
from nni.nas.execution import SequentialExecutionEngine  # isort: skip
from nni.nas.space import RawFormatModelSpace  # isort: skip
from torch.utils.data import TensorDataset  # isort: skip

from nni_supernet_ext.callbacks import GradientVariance  # isort: skip
from nni_supernet_ext.data import ImportanceDataSampler  # isort: skip
from nni_supernet_ext.paths import ImportancePathSampler  # isort: skip
from nni_supernet_ext.spaces import nasbench201  # isort: skip
from nni_supernet_ext.strategies import SupernetStrategy  # isort: skip

Method = Callable[[Any], dict[str, Any]]
WATCH = "SPOS with GradientVariance"
_SKIP = 5
METHODS: dict[str, Method] = {
    "SPOS": lambda share: {},
    "PA": lambda share: {"paths": ImportancePathSampler(share)},
    "DA": lambda share: {"data": ImportanceDataSampler(share)},
    "PA&DA": lambda share: {"paths": ImportancePathSampler(share), "data": ImportanceDataSampler(share)},
}


def timed(part: Any, spent: list[float]) -> None:
    """Make a part's hooks and draws add their processor time to ``spent``."""
    for name in ("on_draws", "on_after_draw", "on_before_update", "on_train_epoch_end", "_refresh", "_draw"):
        if not any(name in vars(kind) for kind in type(part).__mro__[:2]):
            continue
        original = getattr(part, name)

        def wrapped(*arguments: Any, original: Any = original) -> Any:
            start = time.thread_time()
            result = original(*arguments)
            spent[0] += time.thread_time() - start
            return result

        # On a class of its own: the training step looks for hooks on the type.
        part.__class__ = type(type(part).__name__, (type(part),), {name: lambda self, *a, w=wrapped: w(*a)})


def prepared(
    settings: dict[str, Any], data: TensorDataset, arguments: Any, epochs: int, seed: int
) -> Callable[[], None]:
    """Return what trains once."""
    loader = DataLoader(
        data,
        batch_size=arguments.batch,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(seed),
    )
    evaluator = Classification(
        learning_rate=0.05,
        weight_decay=2.5e-4,
        optimizer=torch.optim.SGD,
        num_classes=10,
        train_dataloaders=loader,
        val_dataloaders=loader,
        max_epochs=epochs,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tempfile.gettempdir(),
    )
    evaluator.module.configure_optimizers = lambda: torch.optim.SGD(
        evaluator.module.parameters(), 0.05, momentum=0.9, weight_decay=2.5e-4
    )
    strategy = SupernetStrategy(**settings, gradient_clip_val=5.0, seed=seed, validate=0, recalibrate_batches=0)
    # At the last moment: what is imported or made for the first time may draw random numbers too.
    pl.seed_everything(seed, verbose=False)
    space = nasbench201(channels=arguments.channels, cells_per_stage=1)
    strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return strategy.run


def measure_time(arguments: Any) -> dict[str, Any]:
    """Compare the methods' time per step."""
    n = arguments.steps * arguments.batch
    images = torch.randn(n, 3, arguments.size, arguments.size)
    data = TensorDataset(images, torch.randint(10, (n,)))
    steps: dict[str, list[float]] = {name: [] for name in (*METHODS, WATCH)}
    spent: dict[str, list[float]] = {name: [0.0] for name in steps}
    total = dict.fromkeys(steps, 0.0)
    for index in range(arguments.rounds):
        contenders = {
            name: partial(_contender, name, spent[name], data=data, arguments=arguments, seed=index)
            for name in steps
        }
        for name, seconds in in_lockstep(contenders).items():
            # The first steps meet an empty cache.
            steps[name] += seconds[_SKIP:]
            total[name] += sum(seconds)
    summary = {
        name: {
            **compared(seconds, steps["SPOS"]),
            "own_share": spent[name][0] / total[name],
            "milliseconds": 1e3 * statistics.median(seconds),
        }
        for name, seconds in steps.items()
    }
    setting = {key: value for key, value in vars(arguments).items() if key not in ("out", "data")}
    return {"setting": setting, "steps": len(steps["SPOS"]), "summary": summary}


def _contender(
    name: str, spent: list[float], turns: pl.Callback, data: TensorDataset, arguments: Any, seed: int
) -> Callable[[], None]:
    """Set a contender up with shares of 0, its own hooks timed."""
    settings = METHODS[name](0.0) if name in METHODS else {"watch": GradientVariance()}
    for part in settings.values():
        timed(part, spent)
    watching = [settings.pop("watch")] if "watch" in settings else []
    return prepared({**settings, "callbacks": [*watching, turns]}, data, arguments, 2, seed)


def measure_variance(arguments: Any) -> dict[str, Any]:
    """Record the gradient variance per epoch."""
    with np.load(Path(arguments.data) / "cifar10_small.npz") as small:
        pixels, labels = small["x_train"][: arguments.images], small["y_train"][: arguments.images]
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    images = torch.nn.functional.adaptive_avg_pool2d(images, arguments.size)
    data = TensorDataset(images, torch.from_numpy(labels.astype(np.int64)))
    found: dict[str, list[list[float]]] = {name: [] for name in METHODS}
    for seed in range(arguments.seeds):
        for name, method in METHODS.items():
            variance = GradientVariance()
            prepared({**method("linear"), "callbacks": [variance]}, data, arguments, arguments.epochs, seed)()
            found[name].append(variance.history)
            print(name, seed, [f"{value:.2e}" for value in variance.history], flush=True)
    return {"setting": vars(arguments), "variance": found}


def draw_variance(result: dict[str, Any], path: Path) -> None:
    """Draw the median over seeds and their range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for name, runs in result["variance"].items():
        values = np.asarray(runs)
        epochs = np.arange(1, values.shape[1] + 1)
        (line,) = axes.plot(epochs, np.median(values, axis=0), label=name)
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.15)
    axes.set(xlabel="epoch", ylabel="gradient variance of a weight", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["time", "variance"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", help="folder with cifar10_small.npz")
    for name, default in {
        "channels": 8,
        "size": 16,
        "batch": 64,
        "steps": 60,
        "rounds": 3,
        "epochs": 20,
        "seeds": 3,
        "images": 2048,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    for name in ("pytorch_lightning", "lightning", "nni"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    result = measure_time(arguments) if arguments.what == "time" else measure_variance(arguments)
    if arguments.what == "variance":
        draw_variance(result, arguments.out.with_suffix(".png"))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1, default=str), encoding="utf-8")
    print(json.dumps(result.get("summary", {}), indent=1))


if __name__ == "__main__":
    main()
