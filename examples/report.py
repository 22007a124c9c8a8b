"""The table and the plots at the end of the job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nni_supernet_ext.callbacks.history import TrainingHistory
from nni_supernet_ext.core import resolve_complexity
from nni_supernet_ext.plots import plot_accuracy, plot_cell, plot_training
from nni_supernet_ext.strategies import SupernetEvolution


@dataclass(frozen=True)
class Result:
    """One row of the table; accuracies in 0..1."""

    name: str
    architecture: str
    rank: int
    evaluated: int
    inherited_validation: float
    inherited_test: float
    retrained_test: float
    parameters: float
    flops: float

    def cells(self) -> list[str]:
        """Return the row as text."""
        accuracies = (self.inherited_validation, self.inherited_test, self.retrained_test)
        return [
            self.name,
            f"{self.rank} of {self.evaluated}",
            *(f"{100 * accuracy:.2f} %" for accuracy in accuracies),
            f"{self.parameters:,.0f}",
            f"{self.flops / 1e6:,.2f} M",
        ]


def format_table(results: list[Result]) -> str:
    """Return the aligned table, one row per subnet, and the architectures below it."""
    rows = [
        ["", "rank in", "inherited", "inherited", "retrained", "", ""],
        ["subnet", "search", "val acc", "test acc", "test acc", "parameters", "FLOPs"],
        *(result.cells() for result in results),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["   ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    rule = "-" * len(lines[0])
    architectures = [f"{result.name.ljust(widths[0])}   {result.architecture}" for result in results]
    return "\n".join([rule, *lines[:2], rule, *lines[2:], rule, *architectures])


def draw(
    results: list[Result],
    search: SupernetEvolution,
    history: TrainingHistory,
    retraining: TrainingHistory,
    out: Path,
) -> None:
    """Write accuracy.png, training.png, retraining.png and cell.png."""
    winner = results[0]
    plot_accuracy(
        [subnet.parameters for subnet in search.history],
        [subnet.metrics["val_acc"] for subnet in search.history],
        marked={result.name: (result.parameters, result.inherited_validation) for result in results},
        title=f"{winner.evaluated} subnets with inherited weights",
    ).savefig(out / "accuracy.png")
    rows = history.arrays()
    plot_training(
        rows["iteration"],
        rows["loss"],
        rows["learning_rate"],
        complexities=history.measured(resolve_complexity("parameters", search.supernet)),
        title="Supernet training: SPOS + CaLR + MS",
    ).savefig(out / "training.png")
    rows = retraining.arrays()
    title = "Retraining of the winner: plain cosine schedule"
    figure = plot_training(rows["iteration"], rows["loss"], rows["learning_rate"], title=title)
    figure.savefig(out / "retraining.png")
    title = f"Winning cell: {winner.parameters:,.0f} parameters, {100 * winner.retrained_test:.1f} % retrained"
    plot_cell(search.best.sample, title=title).savefig(out / "cell.png")
