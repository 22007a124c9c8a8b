"""Measure how well supernets rank the architectures of a benchmark, one JSON line per method and seed.

    python benchmarks/ranking/run.py --protocol small --methods params,spos,calr+ms --seeds 0,1,2 \\
        --jobs 2 --out results.jsonl

Methods are parts joined by `+` (methods.py). Protocols on CIFAR-10 need a folder with the benchmark's table and the
images: `--data`, or the environment variable NNI_SUPERNET_DATA. A run that was killed goes on from its last epoch
or evaluation when the command is given again, and runs that are in the results already are skipped. `--jobs n` runs
n processes side by side. `--set architectures=all` evaluates every single architecture, where the protocol's null
takes one of each group of equal networks. `--rescore` computes the metrics of all results anew from their
predictions.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nni_supernet_ext  # noqa: F401 - before anything that imports NNI

from baselines import BASELINES, COSTS, cost, score  # isort: skip
from folders import held, make_folder  # isort: skip
from grounds import GROUNDS, Ground  # isort: skip
from images import Images  # isort: skip
from jobs import end_with_parent, side_by_side  # isort: skip
from measure import check_truths, choose_architectures, predict  # isort: skip
from memory import PeakMemory  # isort: skip
from methods import make_method  # isort: skip
from metrics import line_metrics  # isort: skip
from options import parsed  # isort: skip
from protocols import Protocol  # isort: skip
from results import append_line, holds, read_lines, replace_lines  # isort: skip
from training import epochs_of, trained_supernet  # isort: skip

from nni_supernet_ext.benchmarks import BenchmarkOracle  # isort: skip


@dataclasses.dataclass
class Setting:
    """What all runs of a command share."""

    protocol: Protocol
    ground: Ground
    oracle: BenchmarkOracle
    indices: list[int]
    folder: Path
    work: Path
    accelerator: str
    images: Images | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> Setting:
        """Read the table and choose the architectures."""
        protocol = options.protocol
        ground = GROUNDS[protocol.benchmark]
        oracle = ground.oracle(options.data)
        indices = choose_architectures(oracle, protocol)
        check_truths(oracle, indices)
        return cls(protocol, ground, oracle, indices, options.data or Path(), options.work, options.accelerator)

    def loaded_images(self) -> Images:
        """Return the images, read once and kept on the device that trains."""
        if self.images is None:
            device = "cuda" if self.accelerator == "gpu" else self.accelerator
            self.images = self.ground.images(self.folder, self.protocol).to(device)
        return self.images

    def work_folder(self, method: str, seed: int) -> Path:
        """Return where a run keeps what it needs to go on after a kill."""
        return self.work / f"{self.protocol.name}-{method}-{seed}"

    def metrics(self, found: Mapping[str, Any]) -> dict[str, float]:
        """Compare predictions with the table."""
        return line_metrics(found, self.protocol, self.oracle, self.ground, self.indices)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every combination of method and seed that the results do not hold yet."""
    options = parsed(arguments, __doc__)
    if options.parent is not None:
        end_with_parent(options.parent)
    if options.rescore:
        _rescore(Setting.of(options), options.out)
    elif options.jobs > 1:
        given = list(sys.argv[1:] if arguments is None else arguments)
        side_by_side(Path(__file__).resolve(), given, options.jobs)
    else:
        _measure_all(Setting.of(options), options)


def _measure_all(setting: Setting, options: argparse.Namespace) -> None:
    """Measure this process's share of the runs."""
    items = list(_items(options))
    trained = [item for item in items if item[0] not in COSTS]
    if not all(holds(options.out, setting.protocol, *item) for item in trained):
        setting.loaded_images()  # before any run: too few images are refused at once
    for method, seed in items:
        folder = setting.work_folder(method, seed)
        with held(folder):
            if _is_done(setting, options.out, method, seed):
                continue
            line = _measured(setting, method, seed, folder)
            if not holds(options.out, setting.protocol, method, seed):
                append_line(options.out, line)
            shutil.rmtree(folder, ignore_errors=True)  # last: what fails before can be repeated from it
        print({key: value for key, value in line.items() if not isinstance(value, (dict, list))}, flush=True)


def _is_done(setting: Setting, out: Path, method: str, seed: int) -> bool:
    done = holds(out, setting.protocol, method, seed)
    if done:
        print(f"{setting.protocol.name} {method} seed {seed}: in the results already", flush=True)
    return done


def _items(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Yield this process's share of methods and seeds; all methods of a seed come before the next seed."""
    part, parts = options.part
    costs = [(method, 0) for method in options.methods if method in COSTS]
    seeded = [method for method in options.methods if method not in COSTS]
    items = [*costs, *((method, seed) for seed, method in itertools.product(options.seeds, seeded))]
    return itertools.islice(items, part, None, parts)


def _measured(setting: Setting, method: str, seed: int, folder: Path) -> dict[str, Any]:
    """Return a run's line of results."""
    baseline = method in BASELINES
    found = _baseline(setting, method, seed) if baseline else _supernet(setting, method, seed, folder)
    return {
        "protocol": setting.protocol.as_dict(),
        "method": method,
        "seed": seed,
        **setting.metrics(found),
        **found,
        "indices": setting.indices,
        "versions": _versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _baseline(setting: Setting, method: str, seed: int) -> dict[str, Any]:
    common = setting.ground, setting.oracle, setting.indices
    if method in COSTS:
        return cost(method, *common)
    return score(method, setting.protocol, *common, setting.loaded_images(), seed)


def _supernet(setting: Setting, method: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train a supernet and predict with it; everything stays in the folder."""
    protocol, images = setting.protocol, setting.loaded_images()
    make_folder(folder, protocol)
    memory = PeakMemory(setting.accelerator)
    supernet, weights = trained_supernet(
        protocol, setting.ground, method, seed, images, folder, setting.accelerator
    )
    epochs = epochs_of(folder)
    if setting.accelerator != "cpu":
        supernet.model.to("cuda" if setting.accelerator == "gpu" else setting.accelerator)
    predicted = predict(supernet, weights, protocol, seed, images, setting.oracle, setting.indices, folder)
    return {
        "steps": make_method(method, protocol, setting.ground).steps(protocol),
        "train_seconds": round(sum(entry["seconds"] for entry in epochs), 1),
        "train_cpu_seconds": round(sum(entry["cpu_seconds"] for entry in epochs), 1),
        "evaluation_seconds": predicted["seconds"],
        **memory.found(),
        "final_loss": epochs[-1]["loss"],
        "mean_predicted": sum(predicted["accuracy"]) / len(setting.indices),
        "accelerator": setting.accelerator,
        "predicted": predicted["accuracy"],
        "predicted_loss": predicted["loss"],
    }


def _rescore(setting: Setting, out: Path) -> None:
    """Compute the metrics of all results of a protocol anew, for instance with another table."""
    lines = read_lines(out)
    chosen = [
        line
        for line in lines
        if Protocol(**line["protocol"]) == setting.protocol and line["indices"] == setting.indices
    ]
    for line in chosen:
        line.update(setting.metrics(line))
    replace_lines(out, lines)
    print(f"{setting.protocol.name}: {len(chosen)} of {len(lines)} results computed anew", flush=True)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("nni", "torch", "pytorch-lightning", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


if __name__ == "__main__":
    main()
