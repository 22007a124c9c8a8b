"""The estimate of one batch-norm layer's statistics while a recalibration runs."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nni_supernet_ext.errors import ConfigurationError, DataError

BatchNormLayer: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm

_TORCH_FORWARDS = (nn.BatchNorm2d.forward, nn.SyncBatchNorm.forward)


def has_statistics(layer: BatchNormLayer) -> bool:
    """Tell whether the layer keeps running statistics."""
    return layer.track_running_stats and layer.running_mean is not None and layer.running_var is not None


class LayerEstimate:
    """Estimate the statistics of one layer from the inputs it gets.

    A running average with the rate ``n / (examples so far, these n included)`` is the mean weighted with the
    batch sizes. torch's own forward computes it if that rate is the layer's momentum. A subclass with a
    forward of its own need not read the momentum from the attribute (NNI's super-kernel layers do not), so
    there the statistics are computed beside the layer and stored at the end.

    Args:
        name: Name of the layer in its model, for messages.
        layer: A layer that keeps running statistics.
    """

    def __init__(self, name: str, layer: BatchNormLayer) -> None:
        self._name = name
        self._layer = layer
        self._momentum = layer.momentum
        self._forward_is_torchs = type(layer).forward in _TORCH_FORWARDS
        self._examples = 0
        self._handle: RemovableHandle | None = None
        self._before: list[tuple[Tensor, Tensor]] = []
        self._mean: Tensor | None = None
        self._var: Tensor | None = None

    def attach(self) -> None:
        """Start to observe the inputs of the layer."""
        self._handle = self._layer.register_forward_pre_hook(self._observe, with_kwargs=True)

    def detach(self) -> None:
        """Stop to observe and give the layer its momentum back."""
        if self._handle is not None:
            self._handle.remove()
        self._layer.momentum = self._momentum

    def store(self) -> bool:
        """Write what was estimated beside the layer into it, and tell whether the layer ran at all."""
        if self._mean is not None and self._var is not None and not self._forward_is_torchs:
            mean, var = self._statistics(self._mean.numel())
            mean.copy_(self._mean)
            var.copy_(self._var)
        return self._examples > 0

    def undo(self) -> None:
        """Put back the statistics the layer had before."""
        for buffer, copy in self._before:
            buffer.copy_(copy)

    def _observe(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take the input of one run of the layer into account, just before it runs."""
        inputs: Tensor = args[0] if args else next(iter(kwargs.values()))
        self._check(inputs)
        if self._mean is None or self._var is None:
            self._mean, self._var = self._begin(inputs.shape[1])
        self._examples += inputs.shape[0]
        rate = inputs.shape[0] / self._examples
        if self._forward_is_torchs:
            self._layer.momentum = rate
        else:
            F.batch_norm(inputs, self._mean, self._var, training=True, momentum=rate)

    def _begin(self, channels: int) -> tuple[Tensor, Tensor]:
        """Save the layer's statistics and return fresh ones for the channels in use."""
        buffers = (self._layer.running_mean, self._layer.running_var, self._layer.num_batches_tracked)
        self._before = [(buffer, buffer.clone()) for buffer in buffers if buffer is not None]
        if self._layer.num_batches_tracked is not None:
            self._layer.num_batches_tracked.zero_()
        mean, var = self._statistics(channels)
        # Not left to the first rate, which is 1: a statistic that is not finite would survive 0 * old + new.
        mean.zero_()
        var.fill_(1)
        return (mean, var) if self._forward_is_torchs else (mean.clone(), var.clone())

    def _statistics(self, channels: int) -> tuple[Tensor, Tensor]:
        """Return views of the layer's running mean and variance of the channels in use, a prefix."""
        mean, var = self._layer.running_mean, self._layer.running_var
        if mean is None or var is None:
            raise ConfigurationError(
                f"Batch-norm layer `{self._name}` is expected to keep its running statistics, but lost them "
                "during the recalibration. Do not change the layer in `forward`."
            )
        return mean[:channels], var[:channels]

    def _check(self, inputs: Tensor) -> None:
        """Raise if the input has no variance to estimate or another width than before."""
        channels = inputs.shape[1]
        # SyncBatchNorm counts the values of all processes, and torch itself refuses too few.
        if inputs.numel() <= channels and not isinstance(self._layer, nn.SyncBatchNorm):
            raise DataError(
                f"Argument `batches` is expected to give batch-norm layer `{self._name}` more than one value "
                f"per channel, but got an input of shape {tuple(inputs.shape)}. Use batches of at least 2 "
                "examples and drop a smaller last one."
            )
        if not self._layer.training:
            raise ConfigurationError(
                f"Argument `forward` is expected to keep batch-norm layer `{self._name}` in train mode, but "
                "it ran in eval mode. Run the model without calling its `eval()`."
            )
        if self._mean is not None and self._mean.numel() != channels:
            raise ConfigurationError(
                f"Argument `forward` is expected to run the same subnet on every batch, but batch-norm layer "
                f"`{self._name}` got {channels} channels after {self._mean.numel()}. "
                "Recalibrate one subnet at a time."
            )
