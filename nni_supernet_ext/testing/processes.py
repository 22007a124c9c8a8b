"""Train cases in processes of their own: a fresh one to resume, two to train together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import torch

from nni_supernet_ext.testing.case import MethodCase

_TIMEOUT = 600
_PERIOD = 0.05


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
        AssertionError: A process failed, or they did not end in ten minutes; their output is in the message.
    """
    root.mkdir(parents=True, exist_ok=True)
    job = root / "job.pkl"
    job.write_bytes(cloudpickle.dumps((list(cases), epochs, world_size, checkpoints, root)))
    port = str(_free_port())
    logs = [root / f"output_{rank}.txt" for rank in range(world_size)]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes += [_start(job, rank, world_size, port, log) for rank, log in enumerate(logs)]
        problem = _problem(processes)
    finally:  # whatever happened: one that is left waits for the others, and takes the cores
        for process in processes:
            process.kill()
            process.wait()
    if problem:
        outputs = [f"Output of process {rank}:\n{log.read_text()[-4000:]}" for rank, log in enumerate(logs)]
        raise AssertionError("\n".join([problem, *outputs]))
    return [torch.load(root / f"result_{rank}.pt", weights_only=True) for rank in range(world_size)]


def _problem(processes: Sequence[subprocess.Popen[bytes]]) -> str:
    """Wait for the processes and say what went wrong; empty where all ended well. A failure ends the wait."""
    deadline = time.monotonic() + _TIMEOUT
    while True:
        codes = [process.poll() for process in processes]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed:
            return f"A training process failed: {failed[0]} of {len(codes)}, with exit status {codes[failed[0]]}"
        if None not in codes:
            return ""
        if time.monotonic() > deadline:
            running = [rank for rank, code in enumerate(codes) if code is None]
            return (
                f"The training processes are expected to end within {_TIMEOUT} s, but {running} did not and were "
                "stopped. Train fewer cases or epochs at once, or look for a step that waits for ever"
            )
        time.sleep(_PERIOD)


def _start(job: Path, rank: int, world_size: int, port: str, log: Path) -> subprocess.Popen[bytes]:
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
    # To a file: a pipe that nobody reads would hold the process.
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "nni_supernet_ext.testing.worker", str(job), str(rank)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
