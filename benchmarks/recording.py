"""Measure what recording a search costs: subnets a minute, slowdown of a search, seconds to a live page.

``python benchmarks/recording.py [--subnets 5000] [--search 300] [--rounds 5]``; prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import torch

import nni_supernet_ext  # noqa: F401 - before NNI

from nni.nas.experiment import NasExperiment  # isort: skip

from nni_supernet_ext._compat.nni_database import create_database
from nni_supernet_ext.core import Domain
from nni_supernet_ext.recording import ExperimentRecord
from nni_supernet_ext.spaces import nasbench201
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy
from nni_supernet_ext.testing import toy_evaluator


def subnets_per_minute(folder: Path, count: int) -> float:
    """Record subnets as fast as it goes, until the last one is on disk."""
    create_database(folder / "db" / "nni.sqlite")
    record = ExperimentRecord(folder)
    samples = [sample for sample, _ in zip(Domain(nasbench201(4, 1)).grid(), range(count), strict=False)]
    began = time.perf_counter()
    for number, sample in enumerate(samples):
        record.subnet(sample, {"default": number, "val_acc": number, "parameters": number, "flops": number})
    assert record.close() == 0
    return len(samples) / (time.perf_counter() - began) * 60


def search_seconds(space: Any, folder: Path, subnets: int, record: bool) -> float:
    """Search a supernet for a number of subnets; return the CPU seconds of all threads."""
    search = SupernetEvolution(population=subnets, cycles=0, recalibrate_batches=2, record=record, progress=False)
    made = NasExperiment(space, toy_evaluator(1, root=folder), search)
    made.config.experiment_working_directory = str(folder)
    began = time.process_time()
    made.run()
    passed = time.process_time() - began
    made.stop()
    return passed


def seconds_to_page(space: Any, folder: Path) -> float:
    """Run a training with a page and return the seconds from `run` to the first answer with a trial."""
    import threading

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = NasExperiment(space, toy_evaluator(1, root=folder), SupernetEvolution(population=2, cycles=0))
    made.config.experiment_working_directory = str(folder)
    answered: list[float] = []
    began = time.perf_counter()

    def ask() -> None:
        while not answered:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/nni/trial-jobs", timeout=5) as page:
                    if json.load(page):
                        answered.append(time.perf_counter() - began)
            except (OSError, ValueError):
                pass
            time.sleep(0.05)

    watcher = threading.Thread(target=ask)
    watcher.start()
    made.run(port=port)
    watcher.join(30)
    made.stop()
    return answered[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subnets", type=int, default=5000)
    parser.add_argument("--search", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rate = subnets_per_minute(folder / "rate", arguments.subnets)
        space = nasbench201(4, 1, affine=True, track_running_stats=True)
        SupernetStrategy().mutate_model(space)
        search_seconds(space, folder, 20, record=False)
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for number in range(arguments.rounds):
            # In turns, so that a change of the machine's load falls on both.
            for record in (True, False) if number % 2 else (False, True):
                seconds[record].append(search_seconds(space, folder, arguments.search, record))
        ratios = [on / off for on, off in zip(seconds[True], seconds[False], strict=True)]
        result = {
            "recorded_subnets_per_minute": round(rate),
            "milliseconds_per_recorded_subnet": round(60_000 / rate, 3),
            # What recording alone takes of a search, without the noise of comparing whole searches.
            "share_of_search": round(arguments.search * 60 / rate / statistics.median(seconds[False]), 4),
            "search_slowdown": round(statistics.median(ratios), 4),
            "search_slowdown_rounds": [round(ratio, 4) for ratio in ratios],
            "search_subnets_per_second_unrecorded": round(arguments.search / statistics.median(seconds[False]), 1),
            "seconds_to_live_page": round(seconds_to_page(space, folder), 2),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
