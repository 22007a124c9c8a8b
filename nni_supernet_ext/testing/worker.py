"""Entry point of a training process of the laws: ``python -m nni_supernet_ext.testing.worker JOB RANK``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import torch

from nni_supernet_ext.testing.training import train


def main(job: str, rank: int) -> None:
    """Train every case of a job and write the results beside it."""
    cases, epochs, world_size, checkpoints, root = cloudpickle.loads(Path(job).read_bytes())
    torch.set_num_threads(1)
    arguments: dict[str, Any] = {}
    if world_size > 1:
        arguments = {"devices": world_size, "strategy": "ddp_find_unused_parameters_true"}
    results = []
    for index, case in enumerate(cases):
        settings = case.settings()
        if checkpoints is not None:
            settings["checkpoint_dir"] = checkpoints[index] / "checkpoint"
        run = train(case, settings, root / f"rank{rank}", epochs=epochs, evaluator_arguments=arguments)
        results.append({"draws": run.draws, "weights": run.weights})
    torch.save(results, root / f"result_{rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
