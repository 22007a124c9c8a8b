"""The user's own training data, in an evaluator in which NNI puts other loaders for the time of a run."""

from __future__ import annotations

from typing import Any

from nni.nas.evaluator.pytorch import Lightning

from nni_supernet_ext.strategies.evaluation_data import set_up_data


class TrainingData:
    """Remember where an evaluator's training data come from, and put everything back there.

    Args:
        evaluator: The evaluator, before NNI rewires it.
    """

    def __init__(self, evaluator: Lightning) -> None:
        self._evaluator = evaluator
        self._module: Any = evaluator.datamodule
        self._loader = None if self._module is None else self._module.train_dataloader
        # What the data module itself, and not its class, has in the places where NNI puts wrappers.
        self._own = {
            name: vars(self._module).get(name)
            for name in ("train_dataloader", "val_dataloader")
            if self._module is not None
        }

    def loader(self) -> Any:
        """Return the user's own loader, also once NNI has put the strategy's in its place."""
        if self._loader is None:
            return self._evaluator.train_dataloaders
        trainer: Any = self._evaluator.trainer
        if getattr(trainer, "datamodule", None) is None:  # a training would attach it and set it up
            set_up_data(self._evaluator)
        return self._loader()

    def give_back(self) -> None:
        """Take NNI's wrappers of the loaders off the user's data module, which a search may use next."""
        for name, method in self._own.items():
            if method is not None:
                setattr(self._module, name, method)
            else:
                vars(self._module).pop(name, None)
