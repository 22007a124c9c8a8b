"""Make Markdown tables and figures from the results of `run.py`.

    python benchmarks/ranking/summarize.py benchmarks/ranking/results/small.jsonl --figures docs/figures

Per protocol: every method's mean and sample standard deviation over seeds, the 95 % bootstrap interval of its mean
tau over both seeds and architectures, and its difference to another method's (`--reference`), paired by seed, with
Student's 95 % interval and the seeds in which it is better. `--methods` shows some methods only. A figure shows
every seed. CIFAR-10 protocols need the folder of the table: `--data` or NNI_SUPERNET_DATA.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

import nni_supernet_ext  # noqa: F401 - before anything that imports NNI

from figure import plot_taus  # isort: skip
from grounds import GROUNDS  # isort: skip
from results import Line, read_lines  # isort: skip

from nni_supernet_ext.functional import bootstrap_interval, kendall_tau  # isort: skip

Runs = list[Line]

COLUMNS = {
    "tau": "tau",
    "tau_by_loss": "tau by loss",
    "tau_with_params": "tau with the parameter count",
    "tau_327": "tau on 327",
    "tau_by_loss_327": "tau by loss on 327",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "precision_top10pct": "precision top 10 %",
    "tau_top10pct": "tau in top 10 %",
    "best_of_top1": "top 1",
    "best_of_top10": "best of top 10",
    "regret": "regret",
    "regret_top10": "regret of top 10",
    "improvement_top10": "improvement of top 10",
    "mean_predicted": "mean accuracy of subnets",
    "train_seconds": "training s",
    "train_cpu_seconds": "training core s",
    "evaluation_seconds": "evaluation s",
    "peak_memory_mb": "peak MB",
    "peak_gpu_memory_mb": "peak MB of GPU",
}
GAIN, GAIN_TITLE = "gain_per_hour", "gain in tau per core hour"


def read_runs(path: Path) -> dict[str, dict[str, Runs]]:
    """Read results as protocol name -> method -> its runs in the order of their seeds.

    Of a run that is in the file twice the first counts.
    """
    groups: dict[str, dict[str, dict[int, Line]]] = {}
    for run in read_lines(path):
        by_seed = groups.setdefault(run["protocol"]["name"], {}).setdefault(run["method"], {})
        by_seed.setdefault(run["seed"], run)
    return {
        name: {method: [runs[seed] for seed in sorted(runs)] for method, runs in methods.items()}
        for name, methods in groups.items()
    }


def tau_interval(runs: Runs, actual: Sequence[float], draws: int = 1000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean tau, over architectures and, where there are several, seeds.

    Args:
        runs: Runs of one method on the same architectures.
        actual: True accuracies of these architectures.
        draws: Bootstrap draws.

    Returns:
        Lower and upper end; NaN where no run predicted all of them. Other runs do not count.
    """
    known = [run["predicted"] for run in runs if None not in run["predicted"]]
    if not known:
        return math.nan, math.nan
    predicted = np.array(known, dtype=float)
    if len(known) == 1:
        return bootstrap_interval(predicted[0], actual, kendall_tau, n=draws)
    return bootstrap_interval(predicted, actual, kendall_tau, n=draws, over="both")


def paired_difference(runs: Runs, reference: Runs, key: str = "tau") -> tuple[float, float, int, int] | None:
    """Compare a method with another by seed.

    Args:
        runs: Runs of one method.
        reference: Runs of the other.
        key: Metric.

    Returns:
        Mean difference over the seeds both have, half of Student's 95 % interval (NaN for a single seed), seeds in
        which the method is better, and seeds compared; None where they share no seed.
    """
    by_seed = {run["seed"]: run[key] for run in reference if run.get(key) is not None}
    differences = [
        run[key] - by_seed[run["seed"]] for run in runs if run["seed"] in by_seed and run.get(key) is not None
    ]
    if not differences:
        return None
    n, half = len(differences), math.nan
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / math.sqrt(n))
    return float(np.mean(differences)), half, sum(d > 0 for d in differences), n


def table(
    methods: Mapping[str, Runs],
    draws: int = 1000,
    actual: Sequence[float] | None = None,
    columns: Sequence[str] = tuple(COLUMNS),
    reference: str = "spos",
    others: Mapping[str, Runs] | None = None,
) -> str:
    """Return one protocol's Markdown table, best mean tau first.

    Args:
        methods: The methods to show, with their runs.
        draws: Bootstrap draws of the interval.
        actual: True accuracies of the architectures; without them there is no interval.
        columns: Which columns.
        reference: The method compared with.
        others: Where to find the reference's runs; default: among the methods shown.
    """
    compared_with = (methods if others is None else others).get(reference)
    present = [key for key in columns if any(key in run for runs in methods.values() for run in runs)]
    per_hour = GAIN in columns and compared_with is not None
    compared = [key for key in ("tau", "tau_by_loss") if key in present]
    differences = [f"{COLUMNS[key]} less {reference}'s (seeds better)" for key in compared]
    titles = ["method", "seeds", *(COLUMNS[key] for key in present), *differences, *([GAIN_TITLE] * per_hour)]
    if actual is not None:
        titles.insert(3, "95 % of mean")
    lines = [_row(titles), _row(["---"] * len(titles))]
    for method in sorted(methods, key=lambda name: -_mean_tau(methods[name])):
        runs = methods[method]
        cells = [method, str(len(runs)), *(_mean_and_std(runs, key) for key in present)]
        if actual is not None:
            low, high = tau_interval(runs, actual, draws)
            cells.insert(3, "" if math.isnan(low) else f"{low:.3f} to {high:.3f}")
        other = compared_with if method != reference else None
        cells += [_compared(runs, other, key) for key in compared]
        lines.append(_row([*cells, *([_gain_per_hour(runs, other)] * per_hour)]))
    return "\n".join(lines)


def _mean_tau(runs: Runs) -> float:
    """Return the mean; below all others where no run has a tau, as where all predictions are equal."""
    values = [run["tau"] for run in runs if run["tau"] is not None]
    return float(np.mean(values)) if values else -math.inf


def _compared(runs: Runs, reference: Runs | None, key: str) -> str:
    trained = "predicted_loss" in runs[0]
    compared = paired_difference(runs, reference, key) if reference and trained else None
    if compared is None:
        return ""
    mean, half, better, n = compared
    return f"{mean:+.3f}{'' if math.isnan(half) else f' ± {half:.3f}'} ({better} of {n})"


def _gain_per_hour(runs: Runs, reference: Runs | None) -> str:
    """Return the mean difference in tau for each hour of one core that the method's training takes."""
    compared = paired_difference(runs, reference) if reference and "train_cpu_seconds" in runs[0] else None
    if compared is None:
        return ""
    hours = float(np.mean([run["train_cpu_seconds"] for run in runs])) / 3600
    return f"{compared[0] / hours:+.1f}"


def _mean_and_std(runs: Runs, key: str) -> str:
    values = [run[key] for run in runs if run.get(key) is not None]
    if not values:
        return ""
    size = abs(float(np.mean(values)))
    digits = 3 if size < 10 else 1 if size < 200 else 0
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of every protocol in a file of results, and draw its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--data", default=os.environ.get("NNI_SUPERNET_DATA"), help="folder with the table")
    parser.add_argument("--figures", type=Path, help="folder for a figure per protocol")
    known_columns = ",".join((*COLUMNS, GAIN))
    parser.add_argument("--columns", default=known_columns, help="of the table; default: %(default)s")
    parser.add_argument("--methods", help="methods to show, with commas between; default: all")
    parser.add_argument("--reference", default="spos", help="the method compared with; default: %(default)s")
    options = parser.parse_args(arguments)
    columns = options.columns.split(",")
    unknown = sorted(set(columns) - {*COLUMNS, GAIN})
    if unknown:
        parser.error(
            f"Argument `columns` is expected to name columns, but got {', '.join(unknown)}. Use some of "
            f"{known_columns}."
        )
    protocols = read_runs(options.results)
    measured = sorted({method for found in protocols.values() for method in found})
    shown = options.methods.split(",") if options.methods else measured
    missing = sorted({*shown, *([options.reference] if options.reference != "spos" else [])} - set(measured))
    if missing:
        parser.error(
            f"Arguments `methods` and `reference` are expected to name methods of {options.results}, but got "
            f"{', '.join(missing)}. Use some of {', '.join(measured)}."
        )
    for name, found in protocols.items():
        methods = {method: runs for method, runs in found.items() if method in shown}
        if not methods:
            continue
        runs = next(iter(methods.values()))
        ground = GROUNDS[runs[0]["protocol"].get("benchmark", "nasbench201")]
        known = options.data is not None or not ground.needs_data
        actual = ground.oracle(options.data).accuracies(runs[0]["indices"]) if known else None
        shown_table = table(methods, actual=actual, columns=columns, reference=options.reference, others=found)
        print(f"## {name}\n\n{shown_table}\n")
        if options.figures:
            options.figures.mkdir(parents=True, exist_ok=True)
            known_taus = {m: [run["tau"] for run in runs if run["tau"] is not None] for m, runs in methods.items()}
            taus = {method: values for method, values in known_taus.items() if values}
            plot_taus(taus, f"Protocol {name}").savefig(options.figures / f"ranking_{name}.png", dpi=130)


if __name__ == "__main__":
    main()
