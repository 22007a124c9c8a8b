"""What the evaluator and its trainer must be for a supernet to train in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nni.nas.evaluator.pytorch import Lightning
from pytorch_lightning.callbacks import StochasticWeightAveraging

from nni_supernet_ext._compat.lightning_loops import missing_unused_parameters
from nni_supernet_ext.core.validation_loaders import count_loaders, loader_problems
from nni_supernet_ext.errors import ConfigurationError


def check_evaluator(evaluator: Any, used: bool = False) -> Lightning:
    """Return an evaluator that a supernet can train in.

    Args:
        evaluator: The evaluator of the experiment.
        used: Whether one whose trainer has trained will do, because a checkpoint says where to go on, or because
            only others like it will train. Default False.

    Returns:
        The same evaluator.

    Raises:
        ConfigurationError: Every reason why it cannot, at once.
    """
    if not isinstance(evaluator, Lightning):
        raise ConfigurationError(
            f"The evaluator is expected to be an NNI Lightning evaluator, but got {type(evaluator).__name__}. "
            "Use nni.nas.evaluator.pytorch.Classification, Regression or Lightning."
        )
    problems = [*_data_problems(evaluator), *_trainer_problems(evaluator.trainer)]
    if not used and (evaluator.trainer.current_epoch or evaluator.trainer.global_step):
        problems.append(
            "The evaluator is expected to be fresh, but got one that has already trained and would stop early, or "
            "at once, with the supernet as it was. Make a new evaluator for each training, or give the "
            "`checkpoint_dir` of the training to go on with."
        )
    if not evaluator.module.automatic_optimization:
        problems.append(
            "The evaluator's Lightning module is expected to use automatic optimization, but got manual "
            "optimization. Return the loss from `training_step` and let the strategy step the optimizer."
        )
    if problems:
        raise ConfigurationError(problems)
    return evaluator


def callback_problems(callbacks: Iterable[Any]) -> Iterable[str]:
    """Yield a message for each Lightning callback that would train a supernet wrongly.

    Args:
        callbacks: Those of the trainer and of the strategy.
    """
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        yield (
            "Argument `callbacks` is expected to hold none that needs automatic optimization, but got "
            "StochasticWeightAveraging, whose last pass over the data would train the averaged weights on. Use "
            "Lightning's WeightAveraging or EMAWeightAveraging."
        )


def _data_problems(evaluator: Lightning) -> Iterable[str]:
    if evaluator.datamodule is not None:
        return
    for name in ("train_dataloaders", "val_dataloaders"):
        if getattr(evaluator, name) is None:
            yield (
                f"Argument `{name}` of the evaluator is expected to be a loader, but got None. Give the "
                "evaluator training and validation data."
            )
    yield from loader_problems(evaluator.module, count_loaders(evaluator.val_dataloaders))


def _trainer_problems(trainer: Any) -> Iterable[str]:
    if trainer.barebones:
        yield (
            "Argument `barebones` of the trainer is expected to be False, since it drops the log that metrics are "
            "read from, but got True. Switch off what costs time by its own argument, such as "
            "`enable_progress_bar=False`."
        )
    if trainer.gradient_clip_val is not None:
        yield (
            f"Argument `gradient_clip_val` of the trainer is expected to be None, but got "
            f"{trainer.gradient_clip_val!r}. Use `gradient_clip_val` of SupernetStrategy instead."
        )
    if trainer.accumulate_grad_batches != 1:
        yield (
            f"Argument `accumulate_grad_batches` of the trainer is expected to be 1, but got "
            f"{trainer.accumulate_grad_batches!r}. Use larger batches, or a path sampler with several draws."
        )
    if missing_unused_parameters(trainer):
        yield (
            "Argument `strategy` of the trainer is expected to allow unused parameters, since a step trains only "
            "some subnets, but got DDP that expects a gradient for each. Use "
            "`strategy='ddp_find_unused_parameters_true'`."
        )
