"""Make a Markdown table from the results of `run.py`: mean and spread over seeds, per protocol and method.

    python benchmarks/ranking/summarize.py benchmarks/ranking/results/cpu.jsonl --data <folder>

With the benchmark's table at hand, the interval of tau is the 95 % bootstrap interval over architectures of
the mean over seeds: every draw takes the same architectures for all seeds. Differences between methods are
paired in the same way.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nni_supernet_ext  # noqa: F401 - before anything that imports NNI
from nni_supernet_ext.benchmarks import NasBench201Oracle
from nni_supernet_ext.functional.ranking import bootstrap_interval, kendall_tau

Runs = list[dict[str, Any]]

COLUMNS = {
    "tau": "tau",
    "spearman": "Spearman",
    "precision_top10pct": "precision top 10 %",
    "tau_top10pct": "tau in top 10 %",
    "best_of_top10": "best of predicted top 10",
    "tau_by_loss": "tau by loss",
    "tau_with_params": "tau with params",
    "final_loss": "final loss",
    "train_seconds": "training s",
    "evaluation_seconds": "evaluation s",
}


def read_runs(path: Path) -> dict[str, dict[str, Runs]]:
    """Read results as protocol name -> method -> its runs in the order of their seeds."""
    groups: dict[str, dict[str, Runs]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        run = json.loads(text)
        groups.setdefault(run["protocol"]["name"], {}).setdefault(run["method"], []).append(run)
    for methods in groups.values():
        for runs in methods.values():
            runs.sort(key=lambda run: run["seed"])
    return groups


def tau_interval(
    runs: Runs, actual: Sequence[float], minus: Runs | None = None, draws: int = 1000
) -> tuple[float, float]:
    """Return the bootstrap interval over architectures of the mean tau over seeds.

    Args:
        runs: Runs of one method on the same architectures.
        actual: True accuracies of these architectures.
        minus: Runs of another method; the interval is then that of the difference of the means.
        draws: Bootstrap draws.

    Returns:
        Lower and upper end of the 95 % interval.
    """
    actual = np.asarray(actual, dtype=float)

    def mean_tau(group: Runs, chosen: Any) -> float:
        return float(np.mean([kendall_tau(np.asarray(run["predicted"])[chosen], actual[chosen]) for run in group]))

    def metric(chosen: Any, _: Any) -> float:
        # The bootstrap draws positions, with which every run is looked up alike.
        chosen = chosen.astype(int)
        other = mean_tau(minus, chosen) if minus is not None else 0.0
        return mean_tau(runs, chosen) - other

    positions = np.arange(len(actual), dtype=float)
    return bootstrap_interval(positions, positions, metric, n=draws)


def table(methods: Mapping[str, Runs], oracle: NasBench201Oracle | None = None, draws: int = 1000) -> str:
    """Return one protocol's Markdown table, and the differences to the first trained method below it."""
    present = [key for key in COLUMNS if any(key in run for runs in methods.values() for run in runs)]
    titles = ["method", "seeds", *(COLUMNS[key] for key in present)]
    if oracle is not None:
        titles.insert(3, "95 % interval of tau")
    lines = [_row(titles), _row(["---"] * len(titles))]
    for method, runs in methods.items():
        cells = [method, str(len(runs)), *(_mean_and_std(runs, key) for key in present)]
        if oracle is not None:
            cells.insert(3, _interval(tau_interval(runs, _actual(runs, oracle), draws=draws)))
        lines.append(_row(cells))
    if oracle is not None:
        lines += ["", *_differences(methods, oracle, draws)]
    return "\n".join(lines)


def _differences(methods: Mapping[str, Runs], oracle: NasBench201Oracle, draws: int) -> list[str]:
    """Compare every method with SPOS, or with the first one there is."""
    reference = "spos" if "spos" in methods else next(iter(methods))
    lines = []
    for method, runs in methods.items():
        if method == reference:
            continue
        other = methods[reference]
        difference = np.mean([run["tau"] for run in runs]) - np.mean([run["tau"] for run in other])
        low, high = tau_interval(runs, _actual(runs, oracle), minus=other, draws=draws)
        lines.append(f"- {method} - {reference}: {difference:+.3f} in tau, 95 % interval [{low:+.3f}, {high:+.3f}]")
    return lines


def _actual(runs: Runs, oracle: NasBench201Oracle) -> Any:
    return oracle.table["c10_test"][runs[0]["indices"]]


def _mean_and_std(runs: Runs, key: str) -> str:
    values = [run[key] for run in runs if run.get(key) is not None]
    if not values:
        return ""
    digits = 3 if abs(np.mean(values)) < 10 else 1 if abs(np.mean(values)) > 95 else 2
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def _interval(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of every protocol in a file of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--data", default=os.environ.get("NNI_SUPERNET_DATA"), help="folder with the table")
    options = parser.parse_args(arguments)
    oracle = NasBench201Oracle(options.data) if options.data else None
    for name, methods in read_runs(options.results).items():
        print(f"## {name}\n\n{table(methods, oracle)}\n")


if __name__ == "__main__":
    main()
