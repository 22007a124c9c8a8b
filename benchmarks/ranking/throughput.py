"""Time training and evaluation as the ranking command does them against a plain loop, in one process.

    python benchmarks/ranking/throughput.py --protocol dynas --accelerator gpu --steps 500 --subnets 30 \\
        --workers 8 --evaluation-batch 2500 --contenders plain,ours,channels_last,bf16,compiled
    python benchmarks/ranking/throughput.py --protocol dynas --steps 10 --subnets 2 --threads 1

`plain` is the loop of `plain_loop.py`, `ours` what `run.py` trains, the others change one thing of it: the memory
format, the number format (and the memory format), or candidates compiled one by one. All make the same number of
steps on made-up images after as many to warm up, in turn for every round. Seconds are those of the clock on a GPU,
and those of this process without one. The line of JSON that is printed holds images per second, ratios to `plain`,
and the minutes that the protocol's training, and all subnets of its space on 5,000 images, would take.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nni_supernet_ext  # noqa: F401 - before anything that imports NNI

import numpy as np  # isort: skip
import pytorch_lightning as pl  # isort: skip
import torch  # isort: skip
from grounds import GROUNDS  # isort: skip
from images import in_memory, valid_loader  # isort: skip
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingLayer  # isort: skip
from options import at_least_one  # isort: skip
from plain_loop import Pictures, picture_loader, plain_evaluation, plain_training  # isort: skip
from protocols import PROTOCOLS, Protocol  # isort: skip
from task import ImageClassification  # isort: skip
from training import epochs_of, trained_supernet  # isort: skip

from nni_supernet_ext.core import SubnetEvaluator, Supernet  # isort: skip
from nni_supernet_ext.strategies import SupernetStrategy  # isort: skip

EVALUATED_IMAGES = 5_000
CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "ours": {},
    "channels_last": {"channels_last": True},
    "bf16": {"channels_last": True, "precision": "bf16-mixed"},
    "compiled": {},
}
EVALUATED = ("plain", "ours", "channels_last")


@dataclass(frozen=True)
class Comparison:
    """What all contenders share: a protocol of two epochs, of which the second is timed, and made-up images."""

    protocol: Protocol
    device: str
    workers: int
    pixels: Any
    labels: Any

    @classmethod
    def of(cls, options: argparse.Namespace) -> Comparison:
        """Make it as the command's arguments say."""
        published = PROTOCOLS[options.protocol]
        protocol = replace(
            published,
            train_images=options.steps * published.batch_size,
            epochs=2,
            augment=True,
            evaluation_images=EVALUATED_IMAGES,
            evaluation_batch=options.evaluation_batch or published.evaluation_batch,
        )
        rng = np.random.default_rng(0)
        count = max(protocol.train_images, EVALUATED_IMAGES)
        pixels = rng.integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
        device = "cuda" if options.accelerator == "gpu" else "cpu"
        return cls(protocol, device, options.workers, pixels, rng.integers(10, size=count))

    def now(self) -> float:
        """Return the seconds of the clock once a GPU is done, or those of this process."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def supernet(self, protocol: Protocol) -> Supernet:
        """Make an untrained supernet on the device."""
        torch.manual_seed(0)
        layout = torch.channels_last if protocol.channels_last else torch.contiguous_format
        space = GROUNDS[protocol.benchmark].space(protocol).to(self.device, memory_format=layout)
        return Supernet(SupernetStrategy().mutate_model(space))

    def pictures(self, count: int, augment: bool, batch_size: int) -> Any:
        """Make a loader of the plain loop."""
        pictures = Pictures(self.pixels[:count], self.labels[:count], self.protocol.image_size or 32, augment)
        return picture_loader(pictures, batch_size, augment, self.workers, self.device)


class CompiledCandidates(pl.Callback):
    """Compile every candidate that has weights, in the model that is trained: a copy of it forgets that."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Mark the candidates; each is compiled when it is first used with a shape and in a mode."""
        torch._dynamo.config.recompile_limit = 64
        for layer in pl_module.modules():
            if isinstance(layer, PathSamplingLayer):
                for candidate in layer.children():
                    if next(candidate.parameters(), None) is not None:
                        candidate.compile()


def main(arguments: list[str] | None = None) -> None:
    """Measure and print one line of JSON."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.workers and options.accelerator == "cpu":
        parser.error(
            f"Argument `workers` is expected to be 0 on a CPU, but got {options.workers}. Leave it out: only this "
            "process is timed there."
        )
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("nni").setLevel(logging.WARNING)
    comparison = Comparison.of(options)
    names = list(options.contenders)
    training: dict[str, list[float]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            training[name].append(_training(name, comparison))
    evaluation = {name: _evaluation(name, comparison, options.subnets) for name in names if name in EVALUATED}
    print(json.dumps(_line(options, comparison, training, evaluation)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--protocol", choices=[n for n, p in PROTOCOLS.items() if p.benchmark == "nasbench201"], default="dynas")
    add("--accelerator", choices=("cpu", "gpu"), default="cpu")
    default = ("plain", "ours", "channels_last", "bf16")
    add(
        "--contenders",
        type=_contenders,
        default=default,
        help=f"of {', '.join(CHANGES)}; default: all but the last",
    )
    add("--steps", type=at_least_one, default=100, help="timed steps of a round; as many warm up")
    add("--rounds", type=at_least_one, default=2)
    add("--subnets", type=at_least_one, default=10, help="subnets evaluated, after one to warm up")
    add("--evaluation-batch", type=at_least_one, help="images in an evaluation batch; default: the protocol's")
    add("--workers", type=int, default=0, help="processes that load images for the plain loop")
    add("--threads", type=at_least_one, help="threads of torch; default: torch's own")
    return parser


def _contenders(text: str) -> tuple[str, ...]:
    names = ("plain", *(name for name in text.split(",") if name != "plain"))
    if len(set(names)) < len(names) or not set(names) <= set(CHANGES):
        raise argparse.ArgumentTypeError(f"expected different names of {', '.join(CHANGES)}, but got {text!r}")
    return names


def _training(name: str, comparison: Comparison) -> float:
    """Return the seconds of a contender's second epoch."""
    protocol = replace(comparison.protocol, **CHANGES[name])
    if name == "plain":
        loader = comparison.pictures(protocol.train_images, True, protocol.batch_size)
        epochs = plain_training(comparison.supernet(protocol), protocol, loader, comparison.device)
        next(epochs)
        since = comparison.now()
        next(epochs)
        return comparison.now() - since
    ground = GROUNDS[protocol.benchmark]
    callbacks = [CompiledCandidates()] if name == "compiled" else []
    shown = (comparison.pixels, comparison.labels)
    images = in_memory(*shown, *shown, protocol).to(comparison.device)
    with tempfile.TemporaryDirectory() as folder:
        accelerator = "gpu" if comparison.device == "cuda" else "cpu"
        trained_supernet(protocol, ground, "spos", 0, images, Path(folder), accelerator, callbacks)
        return epochs_of(Path(folder))[1]["seconds" if comparison.device == "cuda" else "cpu_seconds"]


def _evaluation(name: str, comparison: Comparison, subnets: int) -> float:
    """Return the mean seconds of a subnet's evaluation."""
    protocol = replace(comparison.protocol, **CHANGES[name])
    supernet, rng = comparison.supernet(protocol), np.random.default_rng(0)
    samples = [supernet.domain.random(rng) for _ in range(subnets + 1)]
    evaluate: Any
    if name == "plain":
        loader = comparison.pictures(EVALUATED_IMAGES, False, protocol.evaluation_batch)
        evaluate = plain_evaluation(supernet, loader, comparison.device)
    else:
        shown = (comparison.pixels, comparison.labels)
        images = in_memory(*shown, *shown, protocol).to(comparison.device)
        module = ImageClassification(protocol, cosine=False)
        evaluate = SubnetEvaluator(supernet, module, valid_loader(images, protocol)).evaluate
    evaluate(samples[0])
    since = comparison.now()
    for sample in samples[1:]:
        evaluate(sample)
    return (comparison.now() - since) / subnets


def _line(
    options: argparse.Namespace,
    comparison: Comparison,
    training: dict[str, list[float]],
    evaluation: dict[str, float],
) -> dict[str, Any]:
    protocol, published = comparison.protocol, PROTOCOLS[options.protocol]
    step = {name: statistics.median(seconds) / options.steps for name, seconds in training.items()}
    faster = {
        name: [plain / own for plain, own in zip(training["plain"], seconds, strict=True)]
        for name, seconds in training.items()
    }
    subnets = comparison.supernet(protocol).domain.size()
    return {
        "benchmark": "throughput",
        "protocol": options.protocol,
        "device": torch.cuda.get_device_name() if comparison.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **{name: getattr(options, name) for name in ("steps", "rounds", "subnets", "workers")},
        "evaluation_batch": protocol.evaluation_batch,
        "images_per_second": {name: round(protocol.batch_size / seconds, 1) for name, seconds in step.items()},
        "training_speedup": {name: [round(ratio, 3) for ratio in ratios] for name, ratios in faster.items()},
        "training_minutes": {name: round(seconds * published.steps / 60, 1) for name, seconds in step.items()},
        "evaluation_speedup": {name: round(evaluation["plain"] / own, 3) for name, own in evaluation.items()},
        "all_subnets_minutes": {name: round(own * subnets / 60, 1) for name, own in evaluation.items()},
    }


if __name__ == "__main__":
    main()
