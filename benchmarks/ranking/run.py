"""Measure how well supernets rank NAS-Bench-201, one JSON line per method and seed.

    python benchmarks/ranking/run.py --protocol cpu --methods params,spos,calr_ms --seeds 0,1,2 \\
        --data <folder> --out results.jsonl

The folder holds the NAS-Bench-201 table and CIFAR-10; it may also be named by the environment variable
NNI_SUPERNET_DATA. A run that was killed goes on from its last epoch or evaluation when the command is given
again, and runs that are in the results already are skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nni_supernet_ext  # noqa: F401 - before anything that imports NNI

import torch  # isort: skip
from images import Images, load_images  # isort: skip
from measure import choose_architectures, predict, ranking_metrics  # isort: skip
from methods import BASELINES, METHODS  # isort: skip
from protocols import PROTOCOLS, Protocol  # isort: skip
from training import epochs_of, trained_supernet  # isort: skip

from nni_supernet_ext.benchmarks import NasBench201Oracle  # isort: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every combination of method and seed that the results do not hold yet."""
    options = _parse(arguments)
    protocol = _overridden(PROTOCOLS[options.protocol], options.set)
    oracle = NasBench201Oracle(options.data)
    indices = choose_architectures(oracle, protocol)
    work = Path(options.work) if options.work else Path(f"{options.out}.work")
    images: Images | None = None
    for method in options.methods:
        for seed in options.seeds if method in METHODS else [0]:
            if _is_done(Path(options.out), protocol, method, seed):
                print(f"{protocol.name} {method} seed {seed}: in the results already", flush=True)
                continue
            if method in BASELINES:
                line = _baseline(method, oracle, indices)
            else:
                images = images or load_images(Path(options.data), protocol)
                folder = work / f"{protocol.name}-{method}-{seed}"
                line = _supernet(protocol, method, seed, images, oracle, indices, folder, options.accelerator)
            line = {
                "protocol": protocol.as_dict(),
                "method": method,
                "seed": seed,
                **line,
                "versions": _versions(),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            _append(Path(options.out), line)
            print({key: value for key, value in line.items() if not isinstance(value, (dict, list))}, flush=True)


def _baseline(method: str, oracle: NasBench201Oracle, indices: Sequence[int]) -> dict[str, Any]:
    predicted = [BASELINES[method](oracle.sample(index)) for index in indices]
    return {**ranking_metrics(predicted, oracle, indices), "indices": list(indices), "predicted": predicted}


def _supernet(
    protocol: Protocol,
    method: str,
    seed: int,
    images: Images,
    oracle: NasBench201Oracle,
    indices: Sequence[int],
    folder: Path,
    accelerator: str,
) -> dict[str, Any]:
    _check_folder(folder, protocol)
    supernet = trained_supernet(protocol, method, seed, images, folder, accelerator)
    epochs = epochs_of(folder)
    if accelerator != "cpu":
        supernet.model.to(accelerator if accelerator != "gpu" else "cuda")
    predicted = predict(supernet, protocol, seed, images, oracle, indices, folder)
    by_loss = ranking_metrics([-loss for loss in predicted["loss"]], oracle, indices)
    return {
        **ranking_metrics(predicted["accuracy"], oracle, indices),
        "tau_by_loss": by_loss["tau"],
        "steps": protocol.steps,
        "train_seconds": round(sum(entry["seconds"] for entry in epochs.values()), 1),
        "train_cpu_seconds": round(sum(entry["cpu_seconds"] for entry in epochs.values()), 1),
        "evaluation_seconds": predicted["seconds"],
        "final_loss": epochs[max(epochs)]["loss"],
        "mean_predicted": sum(predicted["accuracy"]) / len(indices),
        "accelerator": accelerator,
        "indices": list(indices),
        "predicted": predicted["accuracy"],
        "predicted_loss": predicted["loss"],
    }


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
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


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
    known = (*BASELINES, *METHODS)
    parser.add_argument("--protocol", choices=sorted(PROTOCOLS), required=True)
    parser.add_argument("--methods", default=",".join(known), help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--data", default=os.environ.get("NNI_SUPERNET_DATA"), help="folder with the data")
    parser.add_argument("--out", required=True, help="file of JSON lines to append to")
    parser.add_argument("--work", help="folder for checkpoints; default: beside the results")
    parser.add_argument("--accelerator", default="cpu", help="cpu, gpu or cuda; default: %(default)s")
    parser.add_argument("--threads", type=int, help="threads of torch; default: torch's own")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("give --data or set NNI_SUPERNET_DATA")
    options.methods = options.methods.split(",")
    unknown = set(options.methods) - set(known)
    if unknown:
        parser.error(f"unknown methods {sorted(unknown)}; known are {list(known)}")
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


if __name__ == "__main__":
    main()
