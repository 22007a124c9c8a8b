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
import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import nni_supernet_ext  # noqa: F401 - before anything that imports NNI

import numpy as np  # isort: skip
import torch  # isort: skip
from grounds import GROUNDS  # isort: skip
from images import Images, train_loader  # isort: skip
from protocols import PROTOCOLS, Protocol  # isort: skip
from training import trained_supernet  # isort: skip

from nni_supernet_ext.callbacks import GradientVariance, LossByComplexity  # isort: skip
from nni_supernet_ext.core import SupernetCallback  # isort: skip
from nni_supernet_ext.core.domain import Domain  # isort: skip
from nni_supernet_ext.diagnostics import (  # isort: skip
    SubnetGradients,
    deviation_by_complexity,
    similarity_by_distance,
)
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
        self.found: list[dict[str, Any]] = []

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
        self.found.append(
            {
                "epoch": trainer.current_epoch,
                "similarity": {distance: _rounded(value) for distance, value in similarity.items()},
                "deviation": [_rounded(value) for _, value in deviation],
            }
        )


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
    last = protocol.epochs - 1
    probe = Probe([0, last // 2, last], protocol, images, complexity)
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
        "stages": probe.found,
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


def summary(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown tables of the means over seeds."""
    methods = list(dict.fromkeys(line["method"] for line in lines))
    distances = list(lines[0]["stages"][0]["similarity"])
    parts = []
    for stage, name in enumerate(("first", "middle", "last")):
        titles = [f"after the {name} epoch", *(f"distance {d}" for d in distances), "small", "middle", "large"]
        rows = []
        for method in methods:
            found = [line["stages"][stage] for line in lines if line["method"] == method]
            cosines = [_mean([entry["similarity"][d] for entry in found]) for d in distances]
            deviations = [_mean([entry["deviation"][i] for entry in found]) for i in range(3)]
            rows.append([method, *(f"{c:.3f}" for c in cosines), *(f"{d:.2e}" for d in deviations)])
        parts.append(_table(titles, rows))
    rows = []
    for method in methods:
        own = [line for line in lines if line["method"] == method]
        third = max(1, len(own[0]["variance"]) // 3)
        ends = slice(third), slice(-third, None)
        variances = [_mean([_mean(line["variance"][end]) for line in own]) for end in ends]
        taus = [_mean([line["complexity_convergence"]]) for line in own]
        rows.append([method, *(f"{v:.2e}" for v in variances), ", ".join(f"{tau:.2f}" for tau in taus)])
    titles = ["", "gradient variance, first third", "last third", "complexity with convergence, by seed"]
    return "\n\n".join([*parts, _table(titles, rows)])


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [titles, ["---"] * len(titles), *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the results do not hold yet, or print a table of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", choices=sorted(PROTOCOLS), default="small")
    parser.add_argument("--methods", default="spos,calr,ms,calr+ms", help="default: %(default)s")
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=os.environ.get("NNI_SUPERNET_DATA", "."))
    parser.add_argument("--out", type=Path, help="file of JSON lines to append to")
    parser.add_argument("--epochs", type=int, help="default: the protocol's")
    parser.add_argument("--summarize", type=Path, help="only print the tables of a file of results")
    options = parser.parse_args(arguments)
    if options.summarize is not None:
        texts = options.summarize.read_text(encoding="utf-8").splitlines()
        print(summary([json.loads(text) for text in texts]))
        return
    if options.out is None:
        parser.error("give --out or --summarize")
    torch.set_num_threads(1)
    protocol = PROTOCOLS[options.protocol]
    if options.epochs:
        name = f"{protocol.name}+epochs={options.epochs}"
        protocol = dataclasses.replace(protocol, name=name, epochs=options.epochs)
    done = _done(options.out)
    for seed in map(int, options.seeds.split(",")):
        for method in options.methods.split(","):
            if (protocol.name, method, seed) in done:
                continue
            line = diagnose(protocol, method, seed, options.data)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{method} seed {seed}: done", flush=True)


def _done(out: Path) -> set[tuple[str, str, int]]:
    texts = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    lines = [json.loads(text) for text in texts]
    return {(line["protocol"], line["method"], line["seed"]) for line in lines}


if __name__ == "__main__":
    main()
