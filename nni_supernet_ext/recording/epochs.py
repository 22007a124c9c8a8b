"""Report every epoch of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.functional.rank_correlation import kendall_tau

Sink = Callable[[int, dict[str, float]], None]
Truth = Callable[[dict[str, Any]], float]


class EpochReports(pl.Callback):
    """Hand the metrics of every epoch over, once, at its end and before its checkpoint is written.

    Before and not after it: a run that is killed in between repeats the epoch when it is resumed, and a report
    of an epoch that was reported before is dropped by its receiver; none is missing. An epoch without validation
    repeats the values of the last one; epochs before the first validation have none, and are not reported.

    Args:
        sink: Receives the epoch, counted from 0, and its metrics: ``default``, all that validation logged, and
            ``train_loss``.
        metric: The metric that becomes ``default``. Where it is not known, ``train_loss`` does.
        truth: Function from a sample to its benchmark accuracy; adds ``kendall_tau`` between it and ``metric``
            over the validated fixed subnets.
    """

    def __init__(self, sink: Sink, metric: str = "val_acc", truth: Truth | None = None) -> None:
        self.sink = sink
        self.metric = metric
        self.truth = truth
        self._validated: dict[str, float] = {}
        self._sum: Any = 0.0
        self._batches = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the mean of the training loss."""
        self._sum, self._batches = 0.0, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the loss, without waiting for an accelerator."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor):
            self._sum = self._sum + loss.detach()
            self._batches += 1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the values for epochs without validation."""
        if not trainer.sanity_checking:
            self._validated = _numbers(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the values of the last validation: a resumed training may begin with an epoch without."""
        return {"validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the values of the last validation."""
        self._validated = dict(state_dict["validated"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch; Lightning calls what writes checkpoints after this."""
        # On every rank: to read a value that is synchronized over the epoch is to compute it with all others.
        metrics = {**self._validated, **_numbers(trainer)}
        if trainer.global_rank or (trainer.enable_validation and not self._validated):
            return
        if self._batches:
            metrics["train_loss"] = float(self._sum) / self._batches
        validation = getattr(pl_module, "validation", None)
        if self.truth is not None and validation is not None:
            metrics |= self._ranking(validation.subnets, metrics)
        default = metrics.get(self.metric, metrics.get("train_loss", 0.0))
        self.sink(trainer.current_epoch, {"default": default, **metrics})

    def _ranking(self, subnets: Mapping[str, Sample], metrics: Mapping[str, float]) -> dict[str, float]:
        assert self.truth is not None
        names = [name for name in subnets if f"{self.metric}/{name}" in metrics]
        if len(names) < 2:
            return {}
        predicted = [metrics[f"{self.metric}/{name}"] for name in names]
        return {"kendall_tau": kendall_tau(predicted, [self.truth(dict(subnets[name])) for name in names])}


def _numbers(trainer: pl.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
