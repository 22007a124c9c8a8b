"""The evaluator of a search, and the data it brings."""

from __future__ import annotations

import logging
from typing import Any

from nni.nas.evaluator.pytorch import Lightning
from pytorch_lightning.utilities.model_helpers import is_overridden

from nni_supernet_ext.core.batches import TRANSFER_HOOKS
from nni_supernet_ext.core.evaluation import tracks_statistics
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.errors import ConfigurationError

_logger = logging.getLogger(__name__)


def checked_evaluator(evaluator: Any) -> Lightning:
    """Return the evaluator if a search can use it.

    Raises:
        ConfigurationError: It is no Lightning evaluator, or has no validation data.
    """
    if not isinstance(evaluator, Lightning):
        raise ConfigurationError(
            f"The evaluator is expected to be an NNI Lightning evaluator, but got {type(evaluator).__name__}. Use "
            "the one the supernet was trained with."
        )
    if evaluator.datamodule is None and evaluator.val_dataloaders is None:
        raise ConfigurationError(
            "Argument `val_dataloaders` of the evaluator is expected to be a loader, but got None. Give the "
            "search validation data."
        )
    outside = [name for name, _ in evaluator.module.named_parameters() if not name.startswith("_model.")]
    if outside and not evaluator.trainer.global_step:
        _logger.warning(
            "The evaluator's module holds %d weights beside the model, %r the first, and its trainer has not "
            "trained: the search takes them as they are. Use the evaluator that the supernet was trained with.",
            len(outside),
            outside[0],
        )
    return evaluator


def refuse_hooks_of_data(evaluator: Lightning) -> None:
    """Refuse a data module with transfer hooks of its own, which trials of NNI's training service do not have.

    Raises:
        ConfigurationError: It has some.
    """
    data = evaluator.datamodule
    own = [hook for hook in TRANSFER_HOOKS if data is not None and is_overridden(hook, data)]
    if own:
        raise ConfigurationError(
            f"The evaluator's data module is expected to leave batches as its loaders give them in a search with "
            f"NNI's training service, but got {own} of its own. Move them to the evaluator's module, or search in "
            "this process."
        )


def set_up_data(evaluator: Lightning) -> None:
    """Prepare and set up an evaluator's data module, as a trainer does before it trains.

    Args:
        evaluator: An evaluator with a data module.
    """
    trainer: Any = evaluator.trainer
    data: Any = evaluator.datamodule
    if getattr(trainer, "datamodule", None) is None:  # as `fit` leaves it; its hooks are found there
        trainer.datamodule, data.trainer = data, trainer
    data.prepare_data()
    data.setup("fit")


class SearchData:
    """The loaders of an evaluator; a data module is prepared and set up once, as a trainer would do it.

    Args:
        evaluator: The search's evaluator.
    """

    def __init__(self, evaluator: Lightning) -> None:
        self._evaluator = evaluator
        self._ready = False

    def loader(self, stage: str) -> Any:
        """Return the loader for ``'train'`` or ``'val'``, from the data module where there is one.

        Raises:
            ConfigurationError: There are several to rank by.
        """
        found = self._found(stage)
        if not isinstance(found, (list, tuple, dict)):
            return found
        if stage == "train" and len(found) > 1:
            return found  # They give a batch together, as in the training.
        if len(found) != 1:
            raise ConfigurationError(
                f"Argument `{stage}_dataloaders` of the evaluator is expected to be one loader for a search, but "
                f"got {len(found)}. Join their data sets by torch.utils.data.ConcatDataset, or give the one to "
                "rank by."
            )
        return next(iter(found.values() if isinstance(found, dict) else found))

    def limit(self, stage: str, loader: Any) -> int | None:
        """Return how many of a loader's batches the evaluator's trainer is told to use; None for all of them."""
        asked = getattr(self._evaluator.trainer, f"limit_{stage}_batches", None)
        if isinstance(asked, float):
            return int(asked * len(loader)) if asked < 1.0 else None
        return asked

    def _found(self, stage: str) -> Any:
        module = self._evaluator.datamodule
        if module is None:
            return getattr(self._evaluator, f"{stage}_dataloaders")
        if not self._ready:
            set_up_data(self._evaluator)
            self._ready = True
        return getattr(module, f"{stage}_dataloader")()


def calibration_of(data: SearchData, supernet: Supernet, batches: int) -> Any:
    """Return the training loader for BN statistics, or None where none are estimated.

    Args:
        data: The search's data.
        supernet: The supernet.
        batches: The search's argument ``recalibrate_batches``.

    Raises:
        ConfigurationError: BN statistics are to be estimated, but there are no training data.
    """
    if not batches or not tracks_statistics(supernet):
        return None
    loader = data.loader("train")
    if loader is None:
        raise ConfigurationError(
            "Argument `train_dataloaders` of the evaluator is expected to be a loader for the BN statistics of "
            f"each subnet, but got None with `recalibrate_batches={batches}`. Give the evaluator training data, "
            "or use `recalibrate_batches=0` for the statistics that the training left."
        )
    return loader
