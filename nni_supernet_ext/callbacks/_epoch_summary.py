"""Sum an epoch up in time for its report."""

from __future__ import annotations

from typing import Any

from nni_supernet_ext.core.callback import SupernetCallback


def ends_epoch(trainer: Any) -> bool:
    """Tell whether the validation that is starting is the one at the end of a training epoch."""
    if trainer.sanity_checking or trainer.state.fn != "fit":
        return False
    return bool(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)


class EpochSummary(SupernetCallback):
    """Log numbers of each training epoch, once, before the epoch's results are reported.

    They are logged when the epoch's validation starts, so that its results hold them, or at the end of an epoch
    that has none. Subclasses implement :meth:`_summary`.
    """

    _summed_up: int | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin anew: a callback may serve several trainings."""
        self._summed_up = None

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Log at the end of an epoch that ends with validation."""
        if ends_epoch(trainer):
            self._sum_up(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log at the end of an epoch without validation."""
        self._sum_up(trainer, pl_module)

    def _sum_up(self, trainer: Any, pl_module: Any) -> None:
        if self._summed_up == trainer.current_epoch:
            return
        self._summed_up = trainer.current_epoch
        for name, value in self._summary(pl_module).items():
            pl_module.log(name, value)

    def _summary(self, pl_module: Any) -> dict[str, float]:
        """Return the epoch's numbers by the names they are logged under, and start the next epoch."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `_summary`.")
