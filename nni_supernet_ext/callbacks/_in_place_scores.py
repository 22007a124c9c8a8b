"""Evaluate subnets in the midst of a training that must not notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng

from nni_supernet_ext._compat.lightning_loops import restore_training_modes
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.evaluation import SubnetEvaluator
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.functional._module_modes import preserved_modes


def evaluate_in_place(
    plan: Plan,
    trainer: Any,
    pl_module: Any,
    samples: Sequence[Sample],
    loader: Any,
    read: Callable[[Mapping[str, float]], float],
    settings: Mapping[str, Any],
) -> list[float]:
    """Evaluate subnets with the shared weights; modes, BN statistics, random states and draws stay as they are.

    Args:
        plan: The run.
        trainer: Its trainer.
        pl_module: Its module.
        samples: Architectures.
        loader: Data, or None for the evaluator's validation data, of which each rank uses its share.
        read: Function from a subnet's metrics to the number wanted.
        settings: ``recalibrate_batches`` and ``limit_batches`` of the evaluator.

    Returns:
        One number per subnet, equal on all ranks.

    Raises:
        DataError: There are no data.
    """
    with preserved_modes(pl_module), isolate_rng(), trainer.precision_plugin.val_step_context():
        restore_training_modes(trainer, pl_module)  # which tell the evaluator what layers are frozen
        # Made anew each time: a weight store may have given the supernet other modules in between.
        evaluator = SubnetEvaluator(
            plan.supernet,
            plan.training_module,
            _first(trainer.val_dataloaders if loader is None else loader),
            calibration=plan.train_loader() if settings["recalibrate_batches"] else None,
            seed=plan.seed,
            activate=plan.weights.activate,
            **settings,
        )
        numbers = [read(evaluator.evaluate(sample)) for sample in samples]
    if trainer.world_size > 1:
        shares = torch.tensor(numbers, dtype=torch.float64, device=pl_module.device)
        return pl_module.all_gather(shares).mean(0).tolist()
    return numbers


def is_last_epoch(trainer: Any) -> bool:
    """Tell whether no further epoch is planned."""
    steps, epochs = trainer.max_steps, trainer.max_epochs
    ended = steps not in (None, -1) and trainer.global_step >= steps
    return ended or trainer.should_stop or (epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs)


def _first(loader: Any) -> Any:
    """Return the only or the first loader; nothing becomes an empty one, which the evaluator refuses."""
    if isinstance(loader, (list, tuple)) and loader and hasattr(loader[0], "__iter__"):
        return loader if torch.is_tensor(loader[0]) or isinstance(loader[0], (list, tuple)) else loader[0]
    return () if loader is None else loader
