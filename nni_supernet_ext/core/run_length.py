"""How many training steps a run has."""

from __future__ import annotations

from typing import Any

from nni_supernet_ext.core.plan import Plan


def total_iterations(trainer: Any, plan: Plan) -> int | None:
    """Count the batches of the whole training.

    Args:
        trainer: Lightning's trainer, which knows its loader by now.
        plan: Plan of the run.

    Returns:
        The number of iterations, or None where the training has no known end.
    """
    per_epoch = trainer.num_training_batches
    limits = []
    if trainer.max_epochs not in (None, -1) and per_epoch != float("inf"):
        limits.append(int(per_epoch) * trainer.max_epochs)
    if trainer.max_steps not in (None, -1):
        draws = plan.paths.draws_per_step if plan.step_every == "subnet" else 1
        if draws is None:
            return None  # It depends on what is drawn.
        limits.append(-(-trainer.max_steps // draws))
    return min(limits) if limits else None
