"""One training among several of the same supernet: its part of the space, its evaluator, what it leaves."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import nni
from nni.nas.evaluator.pytorch import Lightning
from pytorch_lightning.plugins import LayerSync
from pytorch_lightning.strategies import Strategy

from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.strategies.supernet import SupernetStrategy
from nni_supernet_ext.strategies.trainer_callbacks import appended_callbacks


class RegionStrategy(SupernetStrategy):
    """Train the part of an already mutated supernet that some choices are restricted to.

    Args:
        base: Strategy whose arguments to take; its components are copied, so they can be used again.
        domain: The restricted choices.
        changes: Arguments that differ from the base's.
        name: Name of the training in reports, the same in every run.
    """

    def __init__(self, base: SupernetStrategy, domain: Domain, changes: Mapping[str, Any], name: str = "") -> None:
        super().__init__(**{**copied_arguments(base), **changes})
        self._region_domain = domain
        self._training_name = name

    def mutate_model(self, model: Any) -> Any:
        """Leave the supernet as it is and look at the region only."""
        self._domain = self._region_domain
        return model


def copied_arguments(base: SupernetStrategy) -> dict[str, Any]:
    """Return the arguments a strategy was made with, with copies of all components.

    Args:
        base: Strategy that keeps every argument as an attribute of the same name, as ``SupernetStrategy``.
    """
    names = [name for name in inspect.signature(SupernetStrategy.__init__).parameters if name != "self"]
    # The space is mutated once, before any training.
    own = [name for name in names if name != "mutation_hooks"]
    return copy.deepcopy({name: getattr(base, name) for name in own})


def fresh_evaluator(evaluator: Lightning, epochs: int | None = None) -> Lightning:
    """Make an evaluator like a given one that has not trained: a trainer does not train twice.

    Loaders and data are shared; the module and the trainer, with its callbacks and loggers, are new. Callbacks that
    were appended to the trainer are copied too.

    Args:
        evaluator: The user's evaluator, not yet used.
        epochs: Epochs to train in place of the trainer's own limits.

    Returns:
        The new evaluator.
    """
    trainer: Any = evaluator.trainer
    arguments = copy.deepcopy(dict(trainer.trace_kwargs))
    if epochs is not None:
        arguments |= {"max_epochs": epochs, "max_steps": -1}
    positional = copy.deepcopy(list(trainer.trace_args))
    fresh: Any = nni.trace(trainer.trace_symbol)(*positional, **_not_set_twice(arguments))
    fresh.callbacks += copy.deepcopy(appended_callbacks(trainer))
    return Lightning(
        copy.deepcopy(evaluator.module),
        fresh,
        train_dataloaders=evaluator.train_dataloaders,
        val_dataloaders=evaluator.val_dataloaders,
        # A strategy replaces methods of the data module, so it gets a shell of its own.
        datamodule=copy.copy(evaluator.datamodule),
        fit_kwargs=dict(evaluator.fit_kwargs),
        detect_interrupt=evaluator.detect_interrupt,
    )


def _not_set_twice(arguments: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a strategy given as an object knows since the first trainer was made with it.

    Args:
        arguments: Arguments of a trainer, the strategy among them a copy of the one already in use.

    Returns:
        The arguments. Lightning accepts the accelerator, and plugins, from one side only.
    """
    if not isinstance(arguments.get("strategy"), Strategy):
        return arguments
    strategy: Any = arguments["strategy"]
    if arguments.get("accelerator", "auto") != "auto" or getattr(strategy, "parallel_devices", None):
        strategy.accelerator = None  # The argument, or the devices, say it again.
    plugins = arguments.get("plugins") or []
    plugins = plugins if isinstance(plugins, list) else [plugins]
    left = [plugin for plugin in plugins if isinstance(plugin, LayerSync)]
    return {**arguments, "plugins": left or None}
