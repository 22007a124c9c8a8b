"""Stop at a loss that is not finite, name the subnet, and keep a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nni_supernet_ext.core.draw import Draw, describe_sample
from nni_supernet_ext.errors import CheckpointError, TrainingDivergedError

_PERIOD = 50
"""Draws between two looks at the losses on an accelerator: a look waits for the device."""


class NonFiniteGuard:
    """Watch the draws' losses without waiting for an accelerator at every step.

    On the CPU each loss is looked at before its backward pass, so the weights are still good and a
    checkpoint is written. On an accelerator, and with several ranks, the losses are gathered and looked at
    every 50 draws, before any checkpoint is written and at the end of each epoch, so no checkpoint holds
    ruined weights.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._draws: list[tuple[int, Draw]] = []

    def watch(self, loss: Tensor, iteration: int, draw: Draw, trainer: Any) -> None:
        """Take notice of a draw's loss, shape ``()``, before its backward pass."""
        if loss.device.type == "cpu" and trainer.world_size == 1:
            if not torch.isfinite(loss).item():
                self._stop(loss.item(), iteration, draw, self._save(trainer), trainer)
            return
        self._losses.append(loss)
        self._draws.append((iteration, draw))
        if len(self._losses) >= _PERIOD:
            self.look(trainer)

    def look(self, trainer: Any) -> None:
        """Look at the gathered losses now.

        Raises:
            TrainingDivergedError: One of them is not finite.
        """
        if not self._losses:
            return
        losses = torch.stack(self._losses).float().cpu()
        draws = self._draws
        self._losses, self._draws = [], []
        finite = torch.isfinite(losses)
        # A loss may be bad on one rank only; all must stop, or the others would wait for ever.
        if trainer.strategy.reduce_boolean_decision(not bool(finite.all()), all=False):
            first = int((~finite).float().argmax())
            iteration, draw = draws[first]
            self._stop(float(losses[first]), iteration, draw, None, trainer)

    @staticmethod
    def _save(trainer: Any) -> Path | None:
        path = Path(trainer.default_root_dir) / "before_nonfinite_loss.ckpt"
        try:
            trainer.save_checkpoint(path, weights_only=False)
        except CheckpointError:  # a part's state that no checkpoint can hold; the loss is what there is to say
            return None
        return path

    @staticmethod
    def _stop(value: float, iteration: int, draw: Draw, saved: Path | None, trainer: Any) -> None:
        written = getattr(trainer.checkpoint_callback, "last_model_path", "")
        kept = str(saved) if saved is not None else written or "none was written yet"
        raise TrainingDivergedError(
            f"The training loss is expected to be finite, but got {value} at iteration {iteration} for the "
            f"{draw.role} [{describe_sample(draw.sample)}]. Lower the learning rate, clip gradients with "
            f"`gradient_clip_val`, or check the data. Last good checkpoint: {kept}."
        )
