"""The training task: classification with SGD, and half a cosine where the method brings no rate of its own."""

from __future__ import annotations

import math
from typing import Any

import nni
import torch
from nni.nas.evaluator.pytorch import LightningModule
from protocols import Protocol
from torch import Tensor
from torch.nn.functional import cross_entropy


@nni.trace
class ImageClassification(LightningModule):
    """Train on cross entropy and validate loss and accuracy.

    Args:
        protocol: Settings of the optimizer.
        cosine: Whether the learning rate falls to zero along half a cosine, step by step.
    """

    def __init__(self, protocol: Protocol, cosine: bool) -> None:
        super().__init__()
        self.protocol, self.cosine = protocol, cosine

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        x, y = batch
        return cross_entropy(self.model(x), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the loss and the accuracy of a batch."""
        x, y = batch
        logits = self.model(x)
        self.log("val_loss", cross_entropy(logits, y))
        self.log("val_acc", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> Any:
        """Make the optimizer and, where asked for, the cosine."""
        protocol = self.protocol
        optimizer = torch.optim.SGD(
            self.parameters(),
            lr=protocol.learning_rate,
            momentum=protocol.momentum,
            nesterov=protocol.momentum > 0,
            weight_decay=protocol.weight_decay,
            fused=next(self.parameters()).is_cuda,
        )
        if not self.cosine:
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / protocol.steps)))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
