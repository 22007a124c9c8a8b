"""Remember every training step: loss, learning rate, subnet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from nni_supernet_ext._integers import integer_problems
from nni_supernet_ext.core.callback import SupernetCallback
from nni_supernet_ext.core.module import SupernetModule
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState

_CHUNK = 256
"""Losses that stay on the device before they are moved together."""


class TrainingHistory(SupernetCallback):
    """Record loss, learning rate and subnet of every draw, for plots and for looking back.

    One row is one draw: with single-path sampling one a batch. Losses stay on the device and are moved in
    chunks, so no step waits for an accelerator. In a plain Lightning trainer a row is one batch whose step
    returns a loss, and ``role`` and ``sample`` are empty. The history is saved in the trainer's checkpoints and
    goes on after a resume. It owns nothing and changes nothing.

    Args:
        every: Record the draws of every ``every``-th batch only. Default 1.

    Raises:
        ConfigurationError: ``every`` is not a positive integer.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> history = TrainingHistory()
        >>> strategy = SupernetStrategy(callbacks=[history])
        >>> history.arrays()['loss'].shape, history.rows()  # after training: a number, a dict per draw
        ((0,), [])
    """

    _iterations: list[int]
    _losses: list[float]
    _rates: list[float]
    _scales: list[float]
    _roles: list[str]
    _labels: tuple[str, ...]
    _values: list[tuple[Any, ...]]
    _waiting: list[Tensor]
    _waiting_rates: list[tuple[int, int, Tensor]]
    _plain_rate: float | Tensor | None

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self._clear()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the numbers of all rows.

        Returns:
            ``iteration`` (batch over the whole training, from 0), ``loss`` (before any weighting),
            ``learning_rate`` (of the step that used the draw, NaN where that step did not happen) and
            ``scale`` (factor on the draw's gradient), each an array of shape ``(rows,)``.
        """
        self._move()
        rates = np.full(len(self._iterations), np.nan)
        rates[: len(self._rates)] = self._rates
        return {
            "iteration": np.asarray(self._iterations, dtype=np.int64),
            "loss": np.asarray(self._losses, dtype=np.float64),
            "learning_rate": rates,
            "scale": np.asarray(self._scales, dtype=np.float64),
        }

    def samples(self) -> list[dict[str, Any]]:
        """Return the subnet of every row, label -> candidate; empty after plain training."""
        return [dict(zip(self._labels, values, strict=True)) for values in self._values]

    def measured(self, complexity: Callable[[dict[str, Any]], float]) -> NDArray[np.float64]:
        """Return a complexity of every row's subnet, each subnet measured once.

        Args:
            complexity: Function from a sample to a number.

        Returns:
            Array of shape ``(rows,)``; empty after plain training.
        """
        known: dict[str, float] = {}
        result = []
        for sample in self.samples():
            key = repr(sample)
            if key not in known:
                known[key] = float(complexity(sample))
            result.append(known[key])
        return np.asarray(result, dtype=np.float64)

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict per row: the numbers of :meth:`arrays`, and ``role`` and ``sample`` if there are."""
        columns: dict[str, list[Any]] = {name: array.tolist() for name, array in self.arrays().items()}
        if self._values:
            columns |= {"role": self._roles, "sample": self.samples()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    # During a supernet's training

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse an interval that is no positive integer."""
        yield from integer_problems("Use 1 to record every batch.", every=self.every)

    def on_after_draw(self, state: StepState) -> None:
        """Take the draw's loss, subnet and factor."""
        if state.iteration % self.every or state.loss is None:
            return
        sample = state.draw.sample
        self._labels = self._labels or tuple(str(label) for label in sample)
        self._values.append(tuple(sample[label] for label in self._labels))
        self._roles.append(state.draw.role)
        self._add(state.iteration, state.loss, state.scales[state.index])

    def on_after_update(self, state: StepState, optimizer: Optimizer) -> None:
        """Note the rate of the step just made on the draws that it used."""
        self._note_rate(state.learning_rate)

    # During plain training

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start anew; a checkpoint's rows come after this."""
        if stage == "fit":
            self._clear()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Read the rate of the step that is about to be made."""
        if not isinstance(pl_module, SupernetModule):
            rate = optimizer.param_groups[0]["lr"]
            self._plain_rate = rate.clone() if isinstance(rate, Tensor) else float(rate)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the batch's loss."""
        iteration = trainer.fit_loop.total_batch_idx
        if isinstance(pl_module, SupernetModule) or iteration % self.every or not outputs:
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is None:  # manual optimization may return anything
            return
        self._add(iteration, loss.detach(), 1.0)
        if self._plain_rate is not None:  # None between the batches whose gradients one step accumulates
            self._note_rate(self._plain_rate)
            self._plain_rate = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the losses off the device."""
        self._move()

    # Checkpoints: Lightning's own mechanism, because it also restores a run that had already ended

    def state_dict(self) -> dict[str, Any]:
        """Return all rows as plain containers."""
        self._move()
        return {
            "iterations": list(self._iterations),
            "losses": list(self._losses),
            "rates": list(self._rates),
            "scales": list(self._scales),
            "roles": list(self._roles),
            "labels": list(self._labels),
            "values": [list(values) for values in self._values],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of a checkpoint."""
        self._clear()
        self._iterations = list(state_dict["iterations"])
        self._losses = list(state_dict["losses"])
        self._rates = list(state_dict["rates"])
        self._scales = list(state_dict["scales"])
        self._roles = list(state_dict["roles"])
        self._labels = tuple(state_dict["labels"])
        self._values = [tuple(values) for values in state_dict["values"]]

    # Inside

    def _clear(self) -> None:
        self._iterations, self._losses, self._rates, self._scales = [], [], [], []
        self._roles, self._labels, self._values = [], (), []
        self._waiting, self._waiting_rates, self._plain_rate = [], [], None

    def _add(self, iteration: int, loss: Tensor, scale: float) -> None:
        self._iterations.append(iteration)
        self._scales.append(float(scale))
        self._waiting.append(loss)
        if len(self._waiting) >= _CHUNK:
            self._move()

    def _note_rate(self, rate: float | Tensor | None) -> None:
        begin, end = len(self._rates), len(self._iterations)
        known = float("nan") if rate is None or isinstance(rate, Tensor) else float(rate)
        self._rates.extend([known] * (end - begin))
        if isinstance(rate, Tensor):
            self._waiting_rates.append((begin, end, rate))

    def _move(self) -> None:
        if self._waiting:
            self._losses.extend(torch.stack(self._waiting).float().tolist())
            self._waiting = []
        for begin, end, rate in self._waiting_rates:
            self._rates[begin:end] = [float(rate)] * (end - begin)
        self._waiting_rates = []
