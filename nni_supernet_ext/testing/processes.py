"""Train cases in processes of their own: a fresh one to resume, two to train together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import torch

from nni_supernet_ext.testing.case import MethodCase

_TIMEOUT = 600


def train_in_processes(
    cases: Sequence[MethodCase],
    root: Path,
    *,
    epochs: int,
    world_size: int = 1,
    checkpoints: Sequence[Path] | None = None,
) -> list[list[dict[str, Any]]]:
    """Train all cases, one after the other, in ``world_size`` fresh processes.

    Args:
        cases: What to train.
        root: Folder for the exchange.
        epochs: Epochs per case.
        world_size: Number of processes; more than one train together by DistributedDataParallel on the CPU.
        checkpoints: For each case a folder with ``checkpoint/last.ckpt`` to go on from.

    Returns:
        For each process, for each case: ``draws`` and ``weights``.

    Raises:
        AssertionError: A process failed; its output is in the message.
    """
    root.mkdir(parents=True, exist_ok=True)
    job = root / "job.pkl"
    job.write_bytes(cloudpickle.dumps((list(cases), epochs, world_size, checkpoints, root)))
    port = str(_free_port())
    processes = [_start(job, rank, world_size, port) for rank in range(world_size)]
    outputs = [process.communicate(timeout=_TIMEOUT)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        if process.returncode:
            raise AssertionError(f"A training process failed:\n{output[-4000:]}")
    return [torch.load(root / f"result_{rank}.pt", weights_only=True) for rank in range(world_size)]


def _start(job: Path, rank: int, world_size: int, port: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if world_size > 1:
        environment |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "TORCHELASTIC_RUN_ID": "laws",
        }
    return subprocess.Popen(
        [sys.executable, "-m", "nni_supernet_ext.testing.worker", str(job), str(rank)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
