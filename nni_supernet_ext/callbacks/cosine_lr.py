"""Cosine learning-rate schedule, for supernets and for retraining."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import pytorch_lightning as pl
from torch import Tensor

from nni_supernet_ext._integers import integer_problems
from nni_supernet_ext._values import is_number
from nni_supernet_ext.core.callback import SupernetCallback
from nni_supernet_ext.core.module import SupernetModule
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.errors import ConfigurationError


class CosineLR(SupernetCallback):
    """Let the learning rate fall along half a cosine from its base value, a little at every batch.

    Use it in ``SupernetStrategy(callbacks=[...])`` and in any plain Lightning trainer: NNI's ``Classification``
    and ``Regression`` evaluators cannot be given a scheduler. The rate of every parameter group is computed
    from the group's own base rate and the batch's number alone, never from the rate before, so a resumed run
    goes on exactly. The callback owns the learning rate: the evaluator must not configure a scheduler.

    Args:
        min_lr: Rate that the schedule approaches at the end. Default 0.
        warmup_iterations: Batches at the start in which the rate rises linearly to its base value. Default 0.

    Raises:
        ConfigurationError: Bad arguments, a second owner of the learning rate, a base rate below ``min_lr``,
            or training without a known end.

    Example:
        >>> from nni_supernet_ext.testing import toy_evaluator
        >>> evaluator = toy_evaluator(callbacks=[CosineLR()])  # for training a network of its own
        >>> round(CosineLR().rate(base=0.1, iteration=50, total_iterations=100), 6)
        0.05

    Reference:
        Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, Eq. 5, for a
        single period that lasts the whole training.

    Deviations:
        Without restarts. The rate changes with every batch, not with every epoch.
    """

    claims = frozenset({"lr"})

    def __init__(self, min_lr: float = 0.0, warmup_iterations: int = 0) -> None:
        self.min_lr = min_lr
        self.warmup_iterations = warmup_iterations
        self._total: int | None = None

    def rate(self, base: float, iteration: int, total_iterations: int) -> float:
        """Return the rate of one batch.

        Args:
            base: Base rate.
            iteration: Number of the batch over the whole training, from 0.
            total_iterations: Batches of the whole training.

        Returns:
            The rate: ``base`` at the end of the warm-up, towards ``min_lr`` at the end of the training.
        """
        if iteration < self.warmup_iterations:
            return base * (iteration + 1) / (self.warmup_iterations + 1)
        length = max(1, total_iterations - self.warmup_iterations)
        share = min(1.0, (iteration - self.warmup_iterations) / length)
        return self.min_lr + (base - self.min_lr) * (1 + math.cos(math.pi * share)) / 2

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse bad arguments and base rates below ``min_lr``."""
        yield from self._argument_problems()
        if plan.optimizer is not None:
            yield from self._rate_problems([plan.optimizer])

    def prepare(self, plan: Plan) -> None:
        """Take the length of the supernet's training, which may count several optimizer steps a batch."""
        self._total = plan.total_iterations
        self._refuse_unknown_end()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the length of a plain trainer's run and check that nothing else sets the rate."""
        if isinstance(pl_module, SupernetModule):
            return  # Its plan checks the combination and calls `prepare`.
        problems = [*self._argument_problems(), *self._rate_problems(trainer.optimizers)]
        problems += self._owner_problems(trainer)
        if problems:
            raise ConfigurationError(problems)
        self._total = _total_batches(trainer)
        self._refuse_unknown_end()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the rate of this batch in every parameter group."""
        assert self._total is not None
        iteration = trainer.fit_loop.total_batch_idx
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        for group in groups:
            if "initial_lr" not in group:
                group["initial_lr"] = float(group["lr"])
            _set_rate(group, self.rate(group["initial_lr"], iteration, self._total))
        if not isinstance(pl_module, SupernetModule):  # which shows the rate itself
            pl_module.log("lr", self.rate(groups[0]["initial_lr"], iteration, self._total), prog_bar=True)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the optimizer its base rate back."""
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                _set_rate(group, group.get("initial_lr", group["lr"]))

    def _argument_problems(self) -> Iterable[str]:
        if not (is_number(self.min_lr) and self.min_lr >= 0):
            yield (
                f"Argument `min_lr` is expected to be a number of at least 0, but got {self.min_lr!r}. Use 0 to "
                "let the rate fall to zero."
            )
        yield from integer_problems("Use 0 for none.", least=0, warmup_iterations=self.warmup_iterations)

    def _rate_problems(self, optimizers: Iterable[Any]) -> Iterable[str]:
        if not is_number(self.min_lr):
            return
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        lowest = min(float(group.get("initial_lr", group["lr"])) for group in groups)
        if lowest < self.min_lr:
            yield (
                f"Argument `min_lr` is expected to be at most the base learning rate, but got {self.min_lr} "
                f"above {lowest}. Lower it, or raise the optimizer's rate."
            )

    def _owner_problems(self, trainer: pl.Trainer) -> Iterable[str]:
        others = [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs]
        others += [
            type(other).__name__
            for other in cast(Any, trainer).callbacks
            if other is not self and "lr" in getattr(other, "claims", ())
        ]
        if others:
            yield (
                f"Decision `lr` is expected to have one owner, but got {1 + len(others)}: CosineLR, "
                f"{', '.join(others)}. Keep one of them."
            )

    def _refuse_unknown_end(self) -> None:
        if self._total is None:
            raise ConfigurationError(
                "The trainer is expected to have a known number of iterations for CosineLR, but got none. Set "
                "`max_epochs` and use a loader with a length, or set `max_steps`."
            )


def _total_batches(trainer: pl.Trainer) -> int | None:
    """Count the batches of a plain trainer's whole run; None where it has no known end."""
    per_epoch, epochs, limits = trainer.num_training_batches, trainer.max_epochs, []
    if epochs is not None and epochs != -1 and per_epoch != float("inf"):
        limits.append(int(per_epoch) * epochs)
    if trainer.max_steps != -1:
        limits.append(trainer.max_steps * trainer.accumulate_grad_batches)
    return min(limits) if limits else None


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)  # A captured optimizer holds on to this very tensor.
    else:
        group["lr"] = rate
