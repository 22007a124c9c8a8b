"""Evaluate subnets of a trained supernet in place, each with its own BN statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from nni_supernet_ext.core.batches import batch_size, to_device
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.epoch_metrics import EpochMetrics
from nni_supernet_ext.core.loaders import detached_batches
from nni_supernet_ext.core.model_arguments import Arguments, calling, model_arguments
from nni_supernet_ext.core.own_hooks import own_hook
from nni_supernet_ext.core.redirected_log import redirected_log
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.errors import DataError
from nni_supernet_ext.functional._module_modes import preserved_modes
from nni_supernet_ext.functional.batch_norm import BatchNormRecalibrator

Activate = Callable[[Supernet, Sample], None]


class SubnetEvaluator:
    """Run an evaluator's ``validation_step`` for any subnet of a supernet, without training and freezing.

    Batches are read once, kept on the supernet's device, and used for every subnet. Values stay on the device
    until the subnet is done.

    Args:
        supernet: The trained supernet.
        training_module: The evaluator's Lightning module; its model is set to the supernet.
        validation: Validation loader.
        calibration: Training loader for BN statistics; None uses the statistics in the supernet.
        recalibrate_batches: How many batches of ``calibration`` to use. Default 20.
        limit_batches: Most validation batches to use; None uses all.
        seed: Seed that chooses the calibration batches.
        activate: How to activate a sample; default in place with shared weights.
        device: Where to evaluate; the supernet is moved there. Default: where it is.
        trainer: The evaluator's trainer, for steps that ask for ``self.trainer``. Default: none.
        precision: Lightning's precision plugin, which casts as in its validation. Default: no casts.

    Raises:
        DataError: The validation loader is empty.

    Example:
        >>> from nni_supernet_ext.testing import toy_evaluator, toy_supernet
        >>> evaluator, supernet = toy_evaluator(), toy_supernet()
        >>> subnets = SubnetEvaluator(supernet, evaluator.module, evaluator.val_dataloaders)
        >>> sorted(subnets.evaluate({'op': 'skip', 'width': 4}))
        ['val_acc', 'val_loss']

    Reference:
        BN statistics: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling",
        ECCV 2020, section 3.4.
    """

    def __init__(
        self,
        supernet: Supernet,
        training_module: Any,
        validation: Iterable[Any],
        *,
        calibration: Any = None,
        recalibrate_batches: int = 20,
        limit_batches: int | None = None,
        seed: int = 0,
        activate: Activate | None = None,
        device: torch.device | None = None,
        trainer: Any = None,
        precision: Any = None,
    ) -> None:
        self.supernet = supernet
        self._module = training_module
        self._precision: Callable[[], AbstractContextManager[Any]] = (
            nullcontext if precision is None else precision.val_step_context
        )
        self._trainer = trainer
        self._module.set_model(supernet.model)
        self._activate = activate or (lambda net, sample: net.activate(sample))
        self._device = device if device is not None else next(supernet.model.parameters()).device
        self._module.to(self._device)
        limit = limit_batches if limit_batches is not None else 2**31
        with attached(self._module, trainer):
            self._batches = self._load(detached_batches(validation, limit, seed))
        if not self._batches:
            raise DataError(
                "Argument `validation` is expected to hold at least one batch, but got an empty loader. Give the "
                "evaluator validation data."
            )
        self._recalibrator = BatchNormRecalibrator(supernet.model)
        self._calibration: list[Arguments] = []
        if calibration is not None and recalibrate_batches and tracks_statistics(supernet):
            with attached(self._module, trainer):
                batches = self._load(detached_batches(calibration, recalibrate_batches, seed))
                self._calibration = [model_arguments(self._module, batch, supernet.model) for batch in batches]

    def evaluate(self, sample: Sample) -> dict[str, float]:
        """Return what the evaluator's ``validation_step`` logs, reduced over the validation examples.

        Hooks ``on_validation_epoch_start`` and ``on_validation_epoch_end`` of the user's own run for each subnet;
        the latter finds its results in ``self.trainer.callback_metrics``.

        A value is the mean over the examples, or what its ``reduce_fx`` says, as under a trainer. The supernet's
        mode, active subnet and BN statistics are afterwards as before.

        Args:
            sample: Architecture to evaluate.

        Returns:
            Metric name -> value, for example ``{'val_loss': 0.7, 'val_acc': 0.8}``.
        """
        with self._calibrated(sample):
            self._module.eval()
            return self._run()

    def extract(self, sample: Sample) -> nn.Module:
        """Return a subnet as a network of its own, with the BN statistics that it is evaluated with.

        Args:
            sample: Architecture.

        Returns:
            The network, in eval mode, on the device of the evaluation, sharing nothing with the supernet.
        """
        with self._calibrated(sample):
            return self.supernet.extract(sample).eval()

    @contextmanager
    def _calibrated(self, sample: Sample) -> Iterator[None]:
        """Have a subnet active with its own BN statistics, and put everything back."""
        model, previous = self.supernet.model, self.supernet.active
        if next(model.parameters()).device != self._device:
            self._module.to(self._device)
        try:
            # First activate: a weight store may exchange the BN statistics themselves.
            self._activate(self.supernet, sample)
            with torch.no_grad(), preserved_modes(self._module), self._recalibrator.preserved():
                if self._calibration:
                    with self._precision():
                        self._recalibrator.recalibrate(self._calibration, calling(model))
                yield
        finally:
            if previous is not None:
                self._activate(self.supernet, previous)

    def _call_own(self, name: str) -> None:
        hook = own_hook(self._module, name)
        if hook is not None:
            hook()

    @contextmanager
    def _shown(self, values: dict[str, torch.Tensor]) -> Iterator[None]:
        """Let a hook read the subnet's results where a trainer shows them, in ``self.trainer.callback_metrics``."""
        trainer = getattr(self._module, "_trainer", None)
        shown = {} if trainer is None else trainer.callback_metrics
        before = dict(shown)
        shown.update(values)
        try:
            yield
        finally:
            shown.clear()
            shown.update(before)

    def _load(self, batches: Iterable[Any]) -> list[Any]:
        return [to_device(self._module, batch, self._device) for batch in batches]

    def _run(self) -> dict[str, float]:
        metrics = EpochMetrics(self._device)
        with attached(self._module, self._trainer), redirected_log(self._module, metrics.log):
            self._call_own("on_validation_epoch_start")
            for index, batch in enumerate(self._batches):
                metrics.size = batch_size(batch)
                with self._precision():
                    self._module.validation_step(batch, index)
            metrics.size = 1
            if own_hook(self._module, "on_validation_epoch_end") is not None:
                with self._shown(metrics.current()):
                    self._call_own("on_validation_epoch_end")
        return metrics.compute()


@contextmanager
def attached(module: Any, trainer: Any) -> Iterator[None]:
    """Let a module's steps and hooks find a trainer where a training has left none.

    Args:
        module: Lightning module.
        trainer: The trainer, or None for none.
    """
    alone = trainer is not None and getattr(module, "_trainer", None) is None
    if alone:
        module.trainer = trainer
    try:
        yield
    finally:
        if alone:
            module.trainer = None


def tracks_statistics(supernet: Supernet) -> bool:
    """Tell whether a supernet has BN statistics to estimate."""
    return any(name.endswith("running_mean") for name, _ in supernet.model.named_buffers())
