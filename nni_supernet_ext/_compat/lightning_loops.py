"""The parts of Lightning's loops that have no public name."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import CombinedLoader


def restart_train_iterator(trainer: Any) -> None:
    """Make the training loader's iterator anew.

    When a run resumes, Lightning 2 makes the first epoch's iterator before any hook in which the random state
    could be restored, and then uses it; so the iterator's draws would come from the wrong state.

    Args:
        trainer: Lightning trainer, inside ``on_train_start``.
    """
    fetcher = getattr(trainer.fit_loop, "_data_fetcher", None)
    if fetcher is not None:
        iter(fetcher)


def restore_training_modes(trainer: Any, module: Any) -> None:
    """Put a module that is validated in the midst of a training into the modes in which it is trained.

    Args:
        trainer: Lightning trainer.
        module: The module that it trains; outside validation it stays as it is.
    """
    modes = getattr(trainer.fit_loop.epoch_loop.val_loop, "_module_mode", None)
    if modes is not None and trainer.validating:
        modes.restore(module)


def missing_unused_parameters(trainer: Any) -> bool:
    """Tell whether the trainer's DistributedDataParallel insists on a gradient for every parameter.

    Args:
        trainer: Lightning trainer.

    Returns:
        True for DDP without ``find_unused_parameters``; False for everything else.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        return False
    return not getattr(strategy, "_ddp_kwargs", {}).get("find_unused_parameters", False)


def combined_like(loader: CombinedLoader, iterables: Any) -> CombinedLoader:
    """Combine other iterables in the way that a combined loader combines its own.

    Args:
        loader: Lightning's combination of loaders, whose mode has no public name.
        iterables: What to combine.

    Returns:
        The new combination.
    """
    return CombinedLoader(iterables, loader._mode)
