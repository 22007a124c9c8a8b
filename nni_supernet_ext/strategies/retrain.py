"""Train a subnet as a network of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import Lightning
from torch import nn

from nni_supernet_ext.callbacks.complexity_lr import ComplexityAwareLR
from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.callbacks.momentum_separation import MomentumSeparation
from nni_supernet_ext.errors import ConfigurationError

SCHEDULES = ("cosine", None)


def retrain(
    network: nn.Module, evaluator: Lightning, *, from_scratch: bool = True, schedule: str | None = "cosine"
) -> dict[str, float]:
    """Train a network with an NNI evaluator as plain Lightning training, by default with a cosine schedule.

    The given network stays as it is: a copy is trained, which afterwards is ``evaluator.module.model``. A network
    in eval mode, as a search returns it, is trained in train mode, but for the modules whose parameters are all
    frozen; of one in train mode every module keeps the mode that it has.

    Args:
        network: Network of its own, for example ``SupernetEvolution.best_network()``.
        evaluator: A fresh evaluator (a trainer does not train twice); its epochs, data, optimizer and callbacks
            are used as they are.
        from_scratch: Whether to draw new initial weights, by ``reset_parameters`` of every module (default), or
            to go on from the weights the network has. Frozen parameters (``requires_grad`` is False), which no
            training could bring back, keep their values either way; so do the statistics of modules whose
            parameters are all frozen. Of a module with both kinds only the others are drawn anew. A module's
            own ``reset_parameters`` has the last word over those of the modules in it.
        schedule: ``'cosine'`` (default): add :class:`~nni_supernet_ext.callbacks.CosineLR` for this run, unless
            the evaluator's module configures a scheduler or one of the trainer's callbacks owns the learning
            rate. None: add none.

    Returns:
        The trainer's last metrics, for example ``train_loss``, ``val_loss`` and ``val_acc``.

    Raises:
        ConfigurationError: All problems at once: an evaluator that has already trained, a method for supernets
            only (complexity-aware learning rate, momentum separation) among the trainer's callbacks, or
            parameters that are not frozen and that no ``reset_parameters`` reaches with ``from_scratch=True``.

    Example:
        >>> from nni_supernet_ext.testing import toy_evaluator, toy_supernet
        >>> network = toy_supernet().extract({'op': 'conv', 'width': 8})
        >>> evaluator = toy_evaluator(max_epochs=1, enable_checkpointing=False)
        >>> metrics = retrain(network, evaluator)
        >>> 0 <= metrics['val_acc'] <= 1, evaluator.module.model is network
        (True, False)

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025,
        Table H of the supplement: retraining uses a plain cosine schedule; a complexity-aware rate does not help.
    """
    problems = list(_problems(evaluator, schedule))
    if problems:
        raise ConfigurationError(problems)
    network = copy.deepcopy(network)
    frozen = _frozen_modules(network)
    if from_scratch:
        _initialise(network, frozen)
    _leave_eval_mode(network, frozen)
    trainer: Any = evaluator.trainer
    before = list(trainer.callbacks)
    if schedule == "cosine" and not any("lr" in getattr(c, "claims", ()) for c in before):
        trainer.callbacks = [_DefaultCosine(), *before]
    try:
        evaluator.evaluate(network)
    finally:
        trainer.callbacks = before
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


class _DefaultCosine(CosineLR):
    """Step back where the evaluator's module turns out to configure a scheduler of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._idle = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._idle = bool(trainer.lr_scheduler_configs)
        if not self._idle:
            super().on_train_start(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self._idle:
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)


def _problems(evaluator: Any, schedule: str | None) -> Iterable[str]:
    if schedule not in SCHEDULES:
        yield (
            f"Argument `schedule` is expected to be one of {SCHEDULES}, but got {schedule!r}. Use 'cosine', or "
            "None with a scheduler or callback of your own."
        )
    if not isinstance(evaluator, Lightning):
        yield (
            f"Argument `evaluator` is expected to be an NNI Lightning evaluator, but got "
            f"{type(evaluator).__name__}. Use nni.nas.evaluator.pytorch.Classification, Regression or Lightning."
        )
        return
    if evaluator.trainer.current_epoch or evaluator.trainer.global_step:
        yield (
            "Argument `evaluator` is expected to be fresh, but got one that has already trained, for example the "
            "supernet, and would stop at once. Make a new evaluator for each retraining."
        )
    for callback in evaluator.trainer.callbacks:
        if isinstance(callback, (ComplexityAwareLR, MomentumSeparation)):
            yield (
                f"The trainer's callbacks are expected to suit a single network, but got "
                f"{type(callback).__name__}, which tells the subnets of a supernet apart. Remove it and retrain "
                "with the plain cosine schedule (`schedule='cosine'`)."
            )


def _leave_eval_mode(network: nn.Module, frozen: Collection[nn.Module]) -> None:
    """Put a network that is in eval mode into train mode; Lightning trains every module in the mode it finds."""
    if network.training:
        return
    network.train()
    for module in frozen:
        module.training = False


def _initialise(network: nn.Module, frozen: Collection[nn.Module]) -> None:
    """Draw new weights wherever they are not frozen, or refuse before anything was trained."""
    missed = []
    with _kept(network, frozen):
        for name, module in _parts_first(network, set()):
            if module in frozen:
                continue
            reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
            # nn.MultiheadAttention keeps its own private.
            reset = reset or getattr(module, "_reset_parameters", None)
            if reset is not None:
                reset()
            elif any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
                missed.append(name or type(network).__name__)
    if missed:
        raise ConfigurationError(
            "Argument `network` is expected to have `reset_parameters` in every module with parameters of its own "
            f"for `from_scratch=True`, but got none in {missed[:5]}. Add the method, or pass a freshly built "
            "network with `from_scratch=False`."
        )


def _parts_first(module: nn.Module, seen: set[nn.Module], name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield every module once, after the modules in it: as they are built, so that a whole's own start stays."""
    seen.add(module)
    for child_name, child in module.named_children():
        if child not in seen:
            yield from _parts_first(child, seen, f"{name}.{child_name}" if name else child_name)
    yield name, module


def _frozen_modules(network: nn.Module) -> set[nn.Module]:
    """Return the modules whose parameters, at least one, are all frozen, with everything that is in them."""
    frozen: set[nn.Module] = set()
    for module in network.modules():
        trained = [parameter.requires_grad for parameter in module.parameters()]
        if trained and not any(trained):
            frozen.update(module.modules())
    return frozen


@contextmanager
def _kept(network: nn.Module, frozen: Iterable[nn.Module]) -> Iterator[None]:
    """Put frozen parameters and the statistics of frozen modules back, whoever else draws them anew meanwhile."""
    tensors: list[torch.Tensor] = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    tensors += [buffer for module in frozen for buffer in module.buffers(recurse=False)]
    before = [tensor.detach().clone() for tensor in tensors]
    yield
    with torch.no_grad():
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)
