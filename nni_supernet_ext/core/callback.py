"""A Lightning callback that may take part in the supernet's training step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytorch_lightning as pl
from torch.optim import Optimizer

from nni_supernet_ext.core.component import Component

if TYPE_CHECKING:
    from nni_supernet_ext.core.state import StepState


class SupernetCallback(Component, pl.Callback):
    """Add four hooks to Lightning's, called with the published state of the step.

    Give it to ``SupernetStrategy(callbacks=[...])``. A hook that a subclass does not override is never
    called, so it costs nothing. Order among callbacks must not matter: claim what you own.

    Example:
        Count the steps in which a candidate was trained::

            class Counter(SupernetCallback):
                def __init__(self): self.counts = collections.Counter()
                def on_draws(self, state): self.counts.update(d.sample['op'] for d in state.draws)
    """

    def on_draws(self, state: StepState) -> None:
        """Run after the step's draws are decided and before the first forward pass."""

    def on_after_draw(self, state: StepState) -> None:
        """Run after the backward pass of each draw; ``state.draw`` and ``state.loss`` are its own."""

    def on_before_update(self, state: StepState, optimizer: Optimizer) -> None:
        """Run before an optimizer step, gradients unscaled and not yet clipped.

        A learning rate or momentum set here is in force for that very step.
        """

    def on_after_update(self, state: StepState, optimizer: Optimizer) -> None:
        """Run after the optimizer step, before any learning-rate scheduler steps."""


HOOKS = ("on_draws", "on_after_draw", "on_before_update", "on_after_update")


def overrides(callback: object, hook: str) -> bool:
    """Tell whether a callback implements one of the supernet hooks itself."""
    method = getattr(type(callback), hook, None)
    return method is not None and method is not getattr(SupernetCallback, hook)
