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
    """Hand the metrics of every epoch over, once, before the epoch's checkpoint is written.

    Before and not after it: a run that is killed in between repeats the epoch when it is resumed, and a report
    of an epoch that was reported before is dropped by its receiver; none is missing.

    Args:
        sink: Receives the epoch, counted from 0, and its metrics: ``default``, all that validation logged, and
            ``train_loss``.
        metric: The metric that becomes ``default``.
        truth: Function from a sample to its benchmark accuracy; adds ``kendall_tau`` between it and ``metric``
            over the validated fixed subnets.
        first: Number of the first epoch: a trial may hold several trainings. Default 0.

    Attributes:
        length: Epochs of the training, once it has begun.
    """

    def __init__(self, sink: Sink, metric: str = "val_acc", truth: Truth | None = None, first: int = 0) -> None:
        self.sink = sink
        self.metric = metric
        self.truth = truth
        self.first = first
        self.length = 0
        self._reported: set[int] = set()
        self._sum: Any = 0.0
        self._batches = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note how long the training will be."""
        self.length = max(trainer.max_epochs or 0, 0)

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
        """Report an epoch that ends with validation."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._report(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report an epoch that had no validation."""
        if trainer.current_epoch not in self._reported and not trainer.enable_validation:
            self._report(trainer, pl_module)

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch
        if epoch in self._reported or trainer.global_rank:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self._batches:
            metrics["train_loss"] = float(self._sum) / self._batches
        default = metrics.get(self.metric, metrics.get("train_loss", 0.0))
        validation = getattr(pl_module, "validation", None)
        if self.truth is not None and validation is not None:
            metrics |= self._ranking(validation.subnets, metrics)
        self._reported.add(epoch)
        self.sink(self.first + epoch, {"default": default, **metrics})

    def _ranking(self, subnets: Mapping[str, Sample], metrics: Mapping[str, float]) -> dict[str, float]:
        assert self.truth is not None
        names = [name for name in subnets if f"{self.metric}/{name}" in metrics]
        if len(names) < 2:
            return {}
        predicted = [metrics[f"{self.metric}/{name}"] for name in names]
        return {"kendall_tau": kendall_tau(predicted, [self.truth(dict(subnets[name])) for name in names])}
