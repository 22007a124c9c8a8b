"""What conditional weights cost: time of a step before and after the split, and memory against plain training.

    python benchmarks/splitting.py --space nasbench201                      # one line of JSON
    python benchmarks/splitting.py --space nasbench201 --accelerator gpu --batch 256

A run trains random images with the same subnets in the same order before and after the split; another trains the
same with shared weights, and both make their steps in turn. Times are processor times of one thread on the CPU and
wall times on a GPU: the ratio of all steps together, and median and quartiles of the ratios of single steps,
for both halves.
Memory, in a step of the largest subnet: on a GPU the peak that the allocator saw; on the CPU weights, gradients and
optimizer state, and the peak of what is kept for backward passes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
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

from nni_supernet_ext.core import Domain, Draw, PathSampler
from nni_supernet_ext.core.slots import WeightStore
from nni_supernet_ext.spaces import NASBENCH201_OPERATIONS, nasbench201, nasbench_macro
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.weights import SharedWeights, WeightSplitting

_WARMUP = 3
SPACES = ("nasbench201", "nasbench201_no_zero", "nasbench201_convolutions", "nasbench_macro")
_LARGEST = {space: "mb6_k5" if space == "nasbench_macro" else "conv_3x3" for space in SPACES}


class Repeated(PathSampler):
    """Draw the same subnets in each of two halves of the training."""

    def __init__(self, samples: list[dict[str, Any]]) -> None:
        self.samples = samples

    def draws(self, rng: np.random.Generator, state: Any) -> list[Draw]:
        """Return the subnet of this step."""
        return [Draw(self.samples[state.iteration % len(self.samples)])]


class Meter(pl.Callback):
    """Measure the memory of the last step of each half.

    Attributes:
        memory: For each half, bytes.
    """

    def __init__(self, half: int) -> None:
        self.half = half
        self.memory: list[int] = []
        self._kept = KeptBytes()

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Begin to watch."""
        if batch_idx % self.half < self.half - 1:
            return
        if module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)
        else:
            self._kept = KeptBytes()
            self._kept.__enter__()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Read the memory of a half."""
        if batch_idx % self.half < self.half - 1:
            return
        if module.device.type == "cuda":
            self.memory.append(torch.cuda.max_memory_allocated(module.device))
        else:
            self._kept.__exit__()
            self.memory.append(self._kept.peak + _held(module, trainer.optimizers[0]))


def _held(module: Any, optimizer: Any) -> int:
    """Return the bytes of weights, gradients and optimizer state."""
    tensors = [t for p in module.parameters() for t in (p, p.grad) if t is not None]
    tensors += [v for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def main() -> None:
    """Print the ratios as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", choices=SPACES, default="nasbench201")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps before, and again after the split")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--cells", type=int, default=5, help="cells per stage of NAS-Bench-201")
    parser.add_argument("--optimizer-state", choices=("copied", "zeroed", "shared"), default="copied")
    parser.add_argument("--accelerator", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    half = arguments.steps + _WARMUP + 1
    turns: dict[str, tuple[list[float], list[float]]] = {"split": ([], []), "shared": ([], [])}
    for number in range(arguments.rounds):
        meters = {name: Meter(half) for name in turns}
        contenders = {name: partial(_contender, arguments, name, number, meters[name], half) for name in turns}
        for name, seconds in in_lockstep(contenders).items():
            for part, values in enumerate(turns[name]):
                # Apart from the warm-up and from the last step, whose memory is watched.
                values += seconds[part * half + _WARMUP : (part + 1) * half - 1]
    before, after = (compared(turns["split"][part], turns["shared"][part]) for part in (0, 1))
    result = {
        "benchmark": "weight splitting",
        **vars(arguments),
        "ms": {
            f"{name} {part}": round(1e3 * statistics.median(values), 2)
            for name, halves in turns.items()
            for part, values in zip(("first half", "second half"), halves, strict=True)
        },
        "MB": {name: round(meter.memory[1] / 2**20, 1) for name, meter in meters.items()},
        "time_to_shared_before": {key: round(value, 3) for key, value in before.items()},
        "time_to_shared_after": {key: round(value, 3) for key, value in after.items()},
        "time_after_to_before": round(after["total"] / before["total"], 3),
        "memory_after_to_shared": round(meters["split"].memory[1] / meters["shared"].memory[1], 3),
        "torch": torch.__version__,
    }
    print(json.dumps(result))


def _contender(
    arguments: argparse.Namespace, name: str, seed: int, meter: Meter, half: int, turns: pl.Callback
) -> Callable[[], None]:
    """Set up one training."""
    space, dependencies, depth = _space(arguments)
    rng = np.random.default_rng(seed)
    domain = Domain(space)
    samples = [domain.random(rng) for _ in range(half)]
    # Memory is looked at in the last step of each half.
    samples[-1] = {label: _LARGEST[arguments.space] for label in domain.labels}
    # All milestones together, right where the second half begins.
    shares = [(half + 0.1 + 0.01 * level) / (2 * half) for level in range(depth)]
    state = arguments.optimizer_state
    split = name == "split"
    store: WeightStore = WeightSplitting(dependencies, shares, optimizer_state=state) if split else SharedWeights()
    strategy = SupernetStrategy(
        paths=Repeated(samples),
        weights=store,
        callbacks=[meter, turns],
        validate=0,
        recalibrate_batches=0,
        record=False,
    )
    images = TensorDataset(
        torch.randn(2 * half * arguments.batch, 3, 32, 32), torch.randint(10, (2 * half * arguments.batch,))
    )
    evaluator = Classification(
        learning_rate=0.025,
        weight_decay=3e-4,
        optimizer=partial(torch.optim.SGD, momentum=0.9),
        train_dataloaders=DataLoader(images, arguments.batch),
        val_dataloaders=DataLoader(images, arguments.batch),
        num_classes=10,
        export_onnx=False,
        max_epochs=1,
        accelerator=arguments.accelerator,
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        default_root_dir=tempfile.mkdtemp(),
    )
    pl.seed_everything(seed, verbose=False)
    strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return strategy.run


def _space(arguments: argparse.Namespace) -> tuple[Any, str, int]:
    """Return the space, its dependencies, and how many milestones they need."""
    if arguments.space == "nasbench_macro":
        return nasbench_macro(), "sequential", 1
    left_out = {
        "nasbench201": (),
        "nasbench201_no_zero": ("none",),
        "nasbench201_convolutions": ("none", "skip_connect", "avg_pool_3x3"),
    }[arguments.space]
    operations = [name for name in NASBENCH201_OPERATIONS if name not in left_out]
    return nasbench201(cells_per_stage=arguments.cells, operations=operations), "nasbench201", 2


if __name__ == "__main__":
    main()
