"""Look into supernets while they train: gradients, and losses by complexity. One JSON line per method and seed.

    python benchmarks/ranking/diagnose.py --protocol small --methods spos,calr,ms,calr+ms --seeds 0,1,2 \\
        --out benchmarks/ranking/results/diagnostics_small.jsonl
    python benchmarks/ranking/diagnose.py --summarize benchmarks/ranking/results/diagnostics_small.jsonl

After the first, the middle and the last epoch: the cosine similarity of two subnets' gradients by the number of
choices in which they differ, and the standard deviation of a subnet's gradient over batches, for the third of the
smallest, of the middle and of the largest subnets. Over the training: the gradient variance of each epoch, the
losses of five ranges of complexity, and the correlation of complexity with convergence.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import nni_supernet_ext  # noqa: F401 - before anything that imports NNI

import numpy as np  # isort: skip
import torch  # isort: skip
from baselines import BASELINES  # isort: skip
from diagnosis_tables import STAGES, summary  # isort: skip
from grounds import GROUNDS  # isort: skip
from images import Images, train_loader  # isort: skip
from methods import make_method  # isort: skip
from options import at_least_one, checked_methods, checked_seeds  # isort: skip
from protocols import PROTOCOLS, Protocol  # isort: skip
from results import append_line, read_lines  # isort: skip
from settings import overridden  # isort: skip
from training import trained_supernet  # isort: skip

from nni_supernet_ext.callbacks import GradientVariance, LossByComplexity  # isort: skip
from nni_supernet_ext.core import SupernetCallback  # isort: skip
from nni_supernet_ext.core.domain import Domain  # isort: skip
from nni_supernet_ext.diagnostics import (  # isort: skip
    SubnetGradients,
    deviation_by_complexity,
    similarity_by_distance,
)
from nni_supernet_ext.errors import ConfigurationError, DataError  # isort: skip
from nni_supernet_ext.functional import complexity_convergence  # isort: skip

BATCHES = 8


class Probe(SupernetCallback):
    """Measure gradients after given epochs, on the same batches each time.

    Args:
        epochs: Numbers of the epochs, from 0.
        protocol: Says what a batch is.
        images: To draw batches from.
        complexity: Cost of a sample.
    """

    def __init__(self, epochs: Sequence[int], protocol: Protocol, images: Images, complexity: Any) -> None:
        self.epochs, self.complexity = set(epochs), complexity
        self.batches = list(islice(train_loader(images, protocol, seed=1_000), BATCHES))
        self.found: dict[int, dict[str, Any]] = {}

    def prepare(self, plan: Any) -> None:
        """Keep the supernet at hand."""
        self.supernet, self.activate = plan.supernet, plan.weights.activate

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure; nothing of the training changes."""
        if trainer.current_epoch not in self.epochs:
            return
        gradients = SubnetGradients(self.supernet, activate=self.activate)
        similarity = similarity_by_distance(gradients, self.batches[0])
        deviation = deviation_by_complexity(gradients, self.batches, self.complexity)
        self.found[trainer.current_epoch] = {
            "epoch": trainer.current_epoch,
            "similarity": {distance: _rounded(value) for distance, value in similarity.items()},
            "deviation": [_rounded(value) for _, value in deviation],
        }


def stage_epochs(protocol: Protocol, method: str) -> dict[str, int]:
    """Return the epochs to look at by name; a method that makes several passes on a batch has fewer of them.

    Raises:
        ConfigurationError: The method trains several supernets, each with copies of what watches.
    """
    made = make_method(method, protocol, GROUNDS[protocol.benchmark])
    if made.few_shot is not None:
        raise ConfigurationError(
            f"Argument `methods` is expected to hold methods that train one supernet, but got {method!r}. Remove "
            "`few_shot` from it."
        )
    last = made.epochs(protocol) - 1
    return dict(zip(STAGES, (0, last // 2, last), strict=True))


def diagnose(protocol: Protocol, method: str, seed: int, data: Path) -> dict[str, Any]:
    """Train one supernet with everything watched.

    Args:
        protocol: Everything but the method.
        method: Parts joined by ``+``.
        seed: Seed of the training.
        data: Folder of images and tables.

    Returns:
        What was measured, as plain values.
    """
    ground = GROUNDS[protocol.benchmark]
    images, complexity = ground.images(data, protocol), ground.costs["params"]
    epochs = stage_epochs(protocol, method)
    probe = Probe(list(epochs.values()), protocol, images, complexity)
    losses, variance = LossByComplexity(complexity), GradientVariance()
    with tempfile.TemporaryDirectory() as folder:
        watching = [probe, losses, variance]
        trained_supernet(protocol, ground, method, seed, images, Path(folder), callbacks=watching)
    centres = _centres(Domain(ground.space(protocol)), complexity, losses)
    curves = np.asarray(losses.history).T
    smooth = [_smooth(curve) for curve in curves]
    complete = all(np.isfinite(curve).all() for curve in smooth)
    return {
        "protocol": protocol.name,
        "method": method,
        "seed": seed,
        "stages": [{"stage": stage, **probe.found[epoch]} for stage, epoch in epochs.items()],
        "variance": [_rounded(value) for value in variance.history],
        "loss_by_range": [[_rounded(value) for value in curve] for curve in curves],
        "complexity_convergence": _rounded(complexity_convergence(centres, smooth)) if complete else None,
    }


def _centres(domain: Domain, complexity: Any, losses: LossByComplexity) -> list[float]:
    """Return the mean complexity of each range."""
    rng = np.random.default_rng(0)
    costs = np.array([complexity(domain.random(rng)) for _ in range(losses.n_prior)])
    places = np.searchsorted(losses.edges, costs, side="right")
    return [float(costs[places == place].mean()) for place in range(len(losses.edges) + 1)]


def _smooth(curve: np.ndarray[Any, Any], width: int = 10) -> np.ndarray[Any, Any]:
    """Return means over parts of the training: an epoch may have no draw of a range."""
    parts = np.array_split(curve, max(5, len(curve) // width))
    known = [part[np.isfinite(part)] for part in parts]
    return np.array([part.mean() if part.size else math.nan for part in known])


def _rounded(value: float) -> float | None:
    """Return four significant digits; None, which JSON knows, for NaN."""
    return None if math.isnan(value) else float(f"{value:.4g}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the results do not hold yet, or print a table of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", choices=sorted(PROTOCOLS), default="small")
    parser.add_argument("--methods", default="spos,calr,ms,calr+ms", help="default: %(default)s")
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=os.environ.get("NNI_SUPERNET_DATA", "."))
    parser.add_argument("--out", type=Path, help="file of JSON lines to append to")
    parser.add_argument("--epochs", type=at_least_one, help="default: the protocol's")
    parser.add_argument("--summarize", type=Path, help="only print the tables of a file of results")
    options = parser.parse_args(arguments)
    if options.summarize is not None:
        try:
            print(summary(read_lines(options.summarize)))
        except DataError as error:
            parser.error(str(error))
        return
    if options.out is None:
        parser.error("give --out or --summarize")
    torch.set_num_threads(1)
    try:
        protocol, methods, seeds = _checked(options)
    except ConfigurationError as error:
        parser.error(str(error))
    for seed in seeds:
        for method in methods:
            if (protocol.name, method, seed) in _done(options.out):
                continue
            append_line(options.out, diagnose(protocol, method, seed, options.data))
            print(f"{method} seed {seed}: done", flush=True)


def _checked(options: argparse.Namespace) -> tuple[Protocol, list[str], list[int]]:
    """Return protocol, methods and seeds; refuses what cannot be looked into."""
    changes = [f"epochs={options.epochs}"] if options.epochs else []
    protocol = overridden(PROTOCOLS[options.protocol], changes)
    methods = checked_methods(options.methods, protocol)
    idle = [method for method in methods if method in BASELINES]
    if idle:
        raise ConfigurationError(
            f"Argument `methods` is expected to hold methods that train, but got {', '.join(idle)}. Remove it."
        )
    for method in methods:
        stage_epochs(protocol, method)
    return protocol, methods, checked_seeds(options.seeds)


def _done(out: Path) -> set[tuple[str, str, int]]:
    lines = read_lines(out) if out.exists() else []
    return {(line["protocol"], line["method"], line["seed"]) for line in lines}


if __name__ == "__main__":
    main()
