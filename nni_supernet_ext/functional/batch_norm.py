"""Recalibrate the batch-norm statistics of a subnet whose weights come from a supernet."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.functional._batch_norm_layer import BatchNormLayer, LayerEstimate, has_statistics

__all__ = ["BatchNormRecalibrator", "preserved_batch_norm", "recalibrate_batch_norm"]

_LAYER_TYPES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class BatchNormRecalibrator:
    """Recalibrate the batch-norm layers of one model again and again, for one active subnet after the other.

    Walks the module tree once, when it is made; make a new one after modules were added or replaced. Leaves
    no hook and no changed setting behind.

    Args:
        model: Model whose BatchNorm1d, 2d, 3d and SyncBatchNorm layers (subclasses included) to recalibrate.
            Layers with ``track_running_stats=False`` are left alone, and so are lazy ones that never ran and
            frozen ones: those that are in eval mode now, while the model is in train mode.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1), nn.Dropout(0.5))
        >>> recalibrator = BatchNormRecalibrator(model)
        >>> recalibrator.recalibrate([torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]])])
        1
        >>> model[0].running_mean, model[0].running_var
        (tensor([3.]), tensor([2.]))
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        named = list(model.named_modules())
        self._modules = tuple(module for _, module in named)
        self._layers: list[tuple[str, BatchNormLayer]] = [
            (name, module) for name, module in named if isinstance(module, _LAYER_TYPES)
        ]
        self._frozen = {id(layer) for _, layer in self._layers if model.training and not layer.training}

    def recalibrate(self, batches: Iterable[Any], forward: Callable[[Any], Any] | None = None) -> int:
        """Replace the running statistics of the layers that run by those of the given batches.

        The new ``running_mean`` and ``running_var`` are the means of the batch means and of the unbiased
        batch variances, each batch weighted with its number of examples. Only layers (and, in layers that use
        a prefix of their channels, only channels) that run get new statistics. Batch-norm layers normalise
        with the statistics of the batch meanwhile; everything else is in eval mode, so dropout is off. A
        layer that runs several times in one forward takes every run as a batch of its own. If anything
        raises, all statistics are put back.

        Args:
            batches: Inputs, or tuples or lists whose first item is the input, of shape (n, channels, ...).
                All of them are used: limit a long loader with ``itertools.islice``.
            forward: Called with one batch to run the model. Default: call the model with the input, moved to
                the device of the statistics.

        Returns:
            Number of layers that got new statistics: 0 if no batch-norm layer ran.

        Raises:
            DataError: If there is no batch, or one with a single value per channel.
            ConfigurationError: If a batch needs a ``forward`` of its own, the active subnet changes between
                the batches, or ``forward`` switches the model to eval mode.

        Deviations:
            Under DistributedDataParallel each process uses its own batches, except for SyncBatchNorm, which
            pools them and needs the same batch size in all processes.
        """
        run = forward if forward is not None else self._run
        layers = [
            (name, layer) for name, layer in self._layers if has_statistics(layer) and id(layer) not in self._frozen
        ]
        estimates = [LayerEstimate(name, layer) for name, layer in layers]
        n_batches = 0
        with torch.no_grad(), self._modes(layers):
            try:
                for estimate in estimates:
                    estimate.attach()
                for batch in batches:
                    n_batches += 1
                    run(batch)
                if n_batches == 0:
                    raise DataError(
                        "Argument `batches` is expected to yield at least one batch, but got none. "
                        "An iterator that was used before is empty: pass the loader itself."
                    )
            except BaseException:
                for estimate in estimates:
                    estimate.undo()
                raise
            finally:
                for estimate in estimates:
                    estimate.detach()
            return sum([estimate.store() for estimate in estimates])

    @contextmanager
    def preserved(self) -> Generator[None, None, None]:
        """Put back all running statistics on exit, bit for bit; see ``preserved_batch_norm``."""
        saved = [
            (layer, name, getattr(layer, name).detach().clone())
            for _, layer in self._layers
            for name in ("running_mean", "running_var", "num_batches_tracked")
            if getattr(layer, name) is not None
        ]
        try:
            yield
        finally:
            with torch.no_grad():
                for layer, name, copy in saved:
                    getattr(layer, name).copy_(copy)

    def _run(self, batch: Any) -> None:
        """Call the model with the input of a batch."""
        inputs = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        if not isinstance(inputs, Tensor):
            raise ConfigurationError(
                f"Argument `batches` is expected to yield tensors or tuples that start with one, but got "
                f"{type(batch).__name__}. Pass a `forward` that runs the model on such a batch."
            )
        for _, layer in self._layers:
            if layer.running_mean is not None:
                inputs = inputs.to(layer.running_mean.device)
                break
        self._model(inputs)

    @contextmanager
    def _modes(self, layers: list[tuple[str, BatchNormLayer]]) -> Generator[None, None, None]:
        """Have the layers in train mode and all other modules in eval mode."""
        training = {id(layer) for _, layer in layers}
        # Not train() and eval(): they walk the tree, and a module may override them with lasting effects.
        before = [module.training for module in self._modules]
        self._set_modes([id(module) in training for module in self._modules])
        try:
            yield
        finally:
            self._set_modes(before)

    def _set_modes(self, modes: list[bool]) -> None:
        """Set the train flag of every module that has another one."""
        for module, mode in zip(self._modules, modes, strict=True):
            if module.training != mode:
                module.training = mode


def recalibrate_batch_norm(
    model: nn.Module, batches: Iterable[Any], *, forward: Callable[[Any], Any] | None = None
) -> int:
    """Replace the running statistics of a model's batch-norm layers by those of the given batches.

    To recalibrate the same model for many subnets, keep a ``BatchNormRecalibrator``, which documents the
    details.

    Args:
        model: Model with batch-norm layers, the subnet to evaluate being active. Layers in eval mode in a model in
            train mode are frozen and stay as they are.
        batches: Inputs, or tuples whose first item is the input, of shape (n, channels, ...).
        forward: Called with one batch to run the model; default ``model(input)``.

    Returns:
        Number of layers that got new statistics.

    Raises:
        DataError: If there is no batch, or one with a single value per channel.
        ConfigurationError: If ``forward`` is needed, or is not a mere run of one and the same subnet.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1))
        >>> recalibrate_batch_norm(model, [(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]))])
        1
        >>> model[0].running_mean, model[0].running_var
        (tensor([2.]), tensor([2.]))

    Reference:
        Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
        section 3.4: the statistics of a subnet are recomputed on training data before it is evaluated.
    """
    return BatchNormRecalibrator(model).recalibrate(batches, forward)


@contextmanager
def preserved_batch_norm(model: nn.Module) -> Generator[None, None, None]:
    """Put back the running statistics of all batch-norm layers on exit, bit for bit.

    Restores ``running_mean``, ``running_var`` and ``num_batches_tracked`` in place, also after an error. The
    copies take as much memory as the statistics.

    Args:
        model: Model whose statistics to keep.

    Yields:
        Nothing.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1))
        >>> with preserved_batch_norm(model):
        ...     _ = recalibrate_batch_norm(model, [torch.tensor([[1.0], [3.0]])])
        >>> model[0].running_mean
        tensor([0.])
    """
    with BatchNormRecalibrator(model).preserved():
        yield
