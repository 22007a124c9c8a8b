"""Linear learning-rate schedule, the same for all subnets."""

from __future__ import annotations

from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.errors import ConfigurationError


class LinearLR(CosineLR):
    """Let the learning rate fall along a line from its base value to zero, a little at every batch.

    Example:
        >>> LinearLR().rate(base=0.1, iteration=50, total_iterations=100)
        0.05
    """

    def rate(self, base: float, iteration: int, total_iterations: int) -> float:
        """Return the rate of one batch.

        Args:
            base: Base rate.
            iteration: Number of the batch over the whole training, from 0.
            total_iterations: Batches of the whole training.
        """
        return base * max(0.0, 1 - iteration / max(1, total_iterations))

    def _refuse_unknown_end(self) -> None:
        if self._total is None:
            raise ConfigurationError(
                "The trainer is expected to have a known number of iterations for the linear schedule, but got "
                "none. Set `max_epochs` and use a loader with a length, set `max_steps`, or use `schedule=None`."
            )
