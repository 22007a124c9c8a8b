"""Trainability of the subnets drawn last, for any batches and outputs that the evaluator's own steps take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import Tensor, nn

from nni_supernet_ext.callbacks import PathTrainability
from nni_supernet_ext.errors import DataError
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import CASES
from nni_supernet_ext.testing.training import train


def test_trainability_of_the_last_paths(tmp_path: Path) -> None:
    callback = PathTrainability(n_paths=3, n_examples=4)
    case = next(case for case in CASES if case.name == "UniformPathSampler")
    run = train(case, {"callbacks": [callback]}, tmp_path, epochs=2)
    assert [len(epoch) for epoch in callback.history] == [3, 3]
    assert all(v.trace > 0 and v.condition >= 1 for epoch in callback.history for v in epoch)
    metrics = run.evaluator.trainer.callback_metrics
    assert float(metrics["trainability_trace"]) == pytest.approx(np.mean([v.trace for v in callback.history[1]]))


class Columns(ModelSpace):
    """Columns of numbers; the output is a dictionary of the classes' scores, a loss of its own and a text."""

    def __init__(self, rows: bool = True) -> None:
        super().__init__()
        self.op = LayerChoice({"wide": nn.Linear(4, 8), "same": nn.Linear(4, 8, bias=False)}, label="op")
        self.head, self.rows = nn.Linear(8, 3), rows

    def forward(self, x: Tensor, scale: Tensor) -> dict[str, Any]:
        """Return scores of shape ``(N, 3)``, and beside them the hidden units and one score alone."""
        hidden = self.op(x * scale).tanh()
        scores = self.head(hidden)
        first = {"first": scores[:, 0], "best": scores.argmax(1)}
        outputs = {"scores": scores, "hidden": hidden, **first} if self.rows else {}
        return {**outputs, "penalty": scores.square().mean(), "name": "columns"}


class Steps(LightningModule):
    """Takes dictionaries of bytes and calls the model by keyword."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        output = self.model(x=batch["x"].float() / 255, scale=torch.tensor(2.0))
        return output["penalty"] + sum(output.get(name, torch.zeros(())).sum() for name in ("scores",))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss."""
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> Any:
        """Leave the weights as they are."""
        return torch.optim.SGD(self.parameters(), 0.0)


def measured(tmp_path: Path, rows: bool = True) -> tuple[PathTrainability, SupernetStrategy, Tensor]:
    bytes_ = torch.randint(0, 256, (6, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    evaluator = Lightning(
        Steps(),
        Trainer(max_epochs=1, accelerator="cpu", default_root_dir=str(tmp_path), **quiet),
        train_dataloaders=DataLoader([{"x": row, "name": "row"} for row in bytes_], batch_size=6),
        val_dataloaders=DataLoader([{"x": row} for row in bytes_], batch_size=6),
    )
    callback = PathTrainability(n_paths=1, n_examples=3)
    strategy = SupernetStrategy(callbacks=[callback], record=False, validate=0)
    strategy(RawFormatModelSpace(Columns(rows), evaluator), SequentialExecutionEngine())
    return callback, strategy, bytes_


def test_the_model_is_called_as_the_evaluators_steps_call_it(tmp_path: Path) -> None:
    callback, strategy, bytes_ = measured(tmp_path)
    supernet = strategy.trained
    network = supernet.extract(supernet.active)
    weights = list(network.parameters())
    gradients = []
    for row in bytes_[:3]:
        output = network(x=row[None].float() / 255, scale=torch.tensor(2.0))
        total = output["scores"].sum() + output["hidden"].sum() + output["first"].sum()
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(total, weights)]).double().numpy())
    kernel = np.array([[one @ other for other in gradients] for one in gradients])
    eigenvalues = np.linalg.eigvalsh(kernel)
    [value] = callback.history[0]
    assert value.trace == pytest.approx(np.trace(kernel) / 3, rel=1e-5)
    assert value.condition == pytest.approx(eigenvalues[-1] / eigenvalues[0], rel=1e-3)


def test_outputs_without_examples_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a row for each of 3 examples, but got the shapes \[\(\)\]"):
        measured(tmp_path, rows=False)
