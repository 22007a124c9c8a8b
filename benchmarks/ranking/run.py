"""Measure how well supernets rank the architectures of a benchmark, one JSON line per method and seed.

    python benchmarks/ranking/run.py --protocol small --methods params,spos,calr+ms --seeds 0,1,2 \\
        --jobs 2 --out results.jsonl

Methods are parts joined by `+` (methods.py). Protocols on CIFAR-10 need a folder with the benchmark's table and the
images: `--data`, or the environment variable NNI_SUPERNET_DATA. A run that was killed goes on from its last epoch
or evaluation when the command is given again, and runs that are in the results already are skipped. `--jobs n` runs
n processes side by side. `--rescore` computes the metrics of all results anew from their predictions.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nni_supernet_ext  # noqa: F401 - before anything that imports NNI

import torch  # isort: skip
from baselines import BASELINES, COSTS, cost, score  # isort: skip
from grounds import GROUNDS, Ground  # isort: skip
from images import Images  # isort: skip
from measure import choose_architectures, predict, ranking_metrics  # isort: skip
from methods import MODIFIERS, PARTS, make_method, unknown_parts  # isort: skip
from protocols import PROTOCOLS, Protocol  # isort: skip
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
        protocol = _overridden(PROTOCOLS[options.protocol], options.set)
        ground = GROUNDS[protocol.benchmark]
        oracle = ground.oracle(options.data)
        indices = choose_architectures(oracle, protocol)
        work = Path(options.work) if options.work else Path(f"{options.out}.work")
        return cls(protocol, ground, oracle, indices, Path(options.data or "."), work, options.accelerator)

    def loaded_images(self) -> Images:
        """Return the images, read once and kept on the device that trains."""
        if self.images is None:
            device = "cuda" if self.accelerator == "gpu" else self.accelerator
            self.images = self.ground.images(self.folder, self.protocol).to(device)
        return self.images

    def metrics(self, predicted: Sequence[float]) -> dict[str, float]:
        """Compare predictions with the table."""
        return ranking_metrics(predicted, self.oracle, self.ground, self.indices)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every combination of method and seed that the results do not hold yet."""
    options = _parse(arguments)
    out = Path(options.out)
    if options.jobs > 1:
        _side_by_side(list(sys.argv[1:] if arguments is None else arguments), options.jobs)
        return
    setting = Setting.of(options)
    if options.rescore:
        _rescore(setting, out)
        return
    for method, seed in _items(options):
        if _is_done(out, setting.protocol, method, seed):
            print(f"{setting.protocol.name} {method} seed {seed}: in the results already", flush=True)
            continue
        line = {
            "protocol": setting.protocol.as_dict(),
            "method": method,
            "seed": seed,
            **(_baseline(setting, method, seed) if method in BASELINES else _supernet(setting, method, seed)),
            "indices": setting.indices,
            "versions": _versions(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        _append(out, line)
        print({key: value for key, value in line.items() if not isinstance(value, (dict, list))}, flush=True)


def _items(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Yield this process's share of methods and seeds; all methods of a seed come before the next seed."""
    part, parts = options.part
    costs = [(method, 0) for method in options.methods if method in COSTS]
    seeded = [method for method in options.methods if method not in COSTS]
    items = [*costs, *((method, seed) for seed, method in itertools.product(options.seeds, seeded))]
    return itertools.islice(items, part, None, parts)


def _side_by_side(arguments: list[str], jobs: int) -> None:
    """Start this command several times, each with its own share of the runs, and wait for all."""
    cleaned = [a for i, a in enumerate(arguments) if a != "--jobs" and (i == 0 or arguments[i - 1] != "--jobs")]
    command = [sys.executable, str(Path(__file__).resolve()), *cleaned]
    started = [subprocess.Popen([*command, "--part", f"{part}/{jobs}"]) for part in range(jobs)]
    codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit(f"{sum(map(bool, codes))} of {jobs} processes failed; give the command again to go on.")


def _baseline(setting: Setting, method: str, seed: int) -> dict[str, Any]:
    common = setting.ground, setting.oracle, setting.indices
    if method in COSTS:
        found = cost(method, *common)
    else:
        found = score(method, setting.protocol, *common, setting.loaded_images(), seed)
    return {**setting.metrics(found["predicted"]), **found}


def _supernet(setting: Setting, method: str, seed: int) -> dict[str, Any]:
    protocol = setting.protocol
    folder = setting.work / f"{protocol.name}-{method}-{seed}"
    _check_folder(folder, protocol)
    images = setting.loaded_images()
    supernet, weights = trained_supernet(
        protocol, setting.ground, method, seed, images, folder, setting.accelerator
    )
    epochs = epochs_of(folder)
    if setting.accelerator != "cpu":
        supernet.model.to("cuda" if setting.accelerator == "gpu" else setting.accelerator)
    predicted = predict(supernet, weights, protocol, seed, images, setting.oracle, setting.indices, folder)
    shutil.rmtree(folder)
    return {
        **setting.metrics(predicted["accuracy"]),
        "tau_by_loss": setting.metrics([-loss for loss in predicted["loss"]])["tau"],
        "steps": make_method(method, protocol, setting.ground).adapted(protocol).steps,
        "train_seconds": round(sum(entry["seconds"] for entry in epochs), 1),
        "train_cpu_seconds": round(sum(entry["cpu_seconds"] for entry in epochs), 1),
        "evaluation_seconds": predicted["seconds"],
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "final_loss": epochs[-1]["loss"],
        "mean_predicted": sum(predicted["accuracy"]) / len(setting.indices),
        "accelerator": setting.accelerator,
        "predicted": predicted["accuracy"],
        "predicted_loss": predicted["loss"],
    }


def _rescore(setting: Setting, out: Path) -> None:
    """Compute the metrics of all results of a protocol anew, for instance with another table."""
    lines = [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines() if text]
    for line in lines:
        if Protocol(**line["protocol"]) == setting.protocol and line["indices"] == setting.indices:
            line.update(setting.metrics(line["predicted"]))
            if "predicted_loss" in line:
                line["tau_by_loss"] = setting.metrics([-loss for loss in line["predicted_loss"]])["tau"]
    out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _check_folder(folder: Path, protocol: Protocol) -> None:
    """Start afresh where a folder holds a run under other settings."""
    path = folder / "protocol.json"
    text = json.dumps(protocol.as_dict(), sort_keys=True)
    if folder.exists() and (not path.exists() or path.read_text(encoding="utf-8") != text):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _is_done(out: Path, protocol: Protocol, method: str, seed: int) -> bool:
    if not out.exists():
        return False
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines() if line]
    # Through the class: results that are older than a setting have its default.
    return any(
        (Protocol(**line["protocol"]), line["method"], line["seed"]) == (protocol, method, seed) for line in lines
    )


def _append(out: Path, line: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    # One call, so that lines of processes side by side do not mix.
    handle = os.open(out, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(line) + "\n").encode())
    finally:
        os.close(handle)


def _overridden(protocol: Protocol, settings: Sequence[str]) -> Protocol:
    """Replace settings given as ``name=value``; the name of the protocol then tells so."""
    kinds = {field.name: type(getattr(protocol, field.name)) for field in dataclasses.fields(protocol)}
    changes: dict[str, Any] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in kinds or name == "name":
            raise SystemExit(f"There is no setting {name!r}; use one of {sorted(kinds)}.")
        changes[name] = text if kinds[name] is str else json.loads(text)
    if changes:
        changes["name"] = f"{protocol.name}+{'+'.join(settings)}"
    return dataclasses.replace(protocol, **changes)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("nni", "torch", "pytorch-lightning", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = f"{', '.join(BASELINES)}; parts of trained methods: {', '.join((*PARTS, *MODIFIERS))}"
    parser.add_argument("--protocol", choices=sorted(PROTOCOLS), required=True)
    parser.add_argument("--methods", default="params,flops,spos,calr+ms", help=f"{parts}. Default: %(default)s")
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--data", default=os.environ.get("NNI_SUPERNET_DATA"), help="folder with the data")
    parser.add_argument("--out", required=True, help="file of JSON lines to append to")
    parser.add_argument("--work", help="folder for checkpoints; default: beside the results")
    parser.add_argument("--accelerator", default="cpu", help="cpu, gpu or cuda; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side; default: %(default)s")
    parser.add_argument("--part", default="0/1", help=argparse.SUPPRESS)
    parser.add_argument("--rescore", action="store_true", help="only compute the metrics of the results anew")
    parser.add_argument("--threads", type=int, help="threads of torch; default: torch's own")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting")
    options = parser.parse_args(arguments)
    if options.data is None and GROUNDS[PROTOCOLS[options.protocol].benchmark].needs_data:
        parser.error("give --data or set NNI_SUPERNET_DATA")
    options.methods = options.methods.split(",")
    options.part = tuple(map(int, options.part.split("/")))
    unknown = set().union(*(unknown_parts(name) for name in options.methods)) - set(BASELINES)
    if unknown:
        parser.error(f"unknown methods {sorted(unknown)}; known are {parts}")
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


if __name__ == "__main__":
    main()
