"""Run a batch through the evaluator module's transfer hooks and catch what it logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from nni_supernet_ext.errors import ConfigurationError

Log = Callable[..., None]


def to_device(module: Any, batch: Any, device: torch.device, model: nn.Module | None = None) -> Any:
    """Move a batch to a device through the module's own transfer hooks.

    Args:
        module: The evaluator's Lightning module.
        batch: Batch on any device.
        device: Where to move it.
        model: Whose weights set the precision. Default: the module's model.

    Returns:
        The batch as the module's steps expect it; floating-point tensors in the precision of the weights.
    """
    batch = module.on_before_batch_transfer(batch, 0)
    batch = module.transfer_batch_to_device(batch, device, 0)
    batch = module.on_after_batch_transfer(batch, 0)
    parameters = (module.model if model is None else model).parameters()
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)
    if dtype == torch.float32:
        return batch
    return apply_to_collection(batch, Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t)


def example_inputs(module: Any, batch: Any, model: nn.Module) -> Tensor:
    """Return two examples of a batch as the model takes them, for counting operations or reading its graph.

    Args:
        module: The evaluator's Lightning module.
        batch: Batch on any device: inputs, or inputs and targets.
        model: The model, which sets device and precision.

    Returns:
        Inputs of shape ``(2, ...)``, fewer where the batch has fewer.

    Raises:
        ConfigurationError: The inputs are no tensor.
    """
    moved = to_device(module, batch, next(model.parameters()).device, model)
    inputs = moved[0] if isinstance(moved, (list, tuple)) else moved
    if not isinstance(inputs, Tensor):
        raise ConfigurationError(
            "A batch is expected to be a tensor, or to begin with the tensor of inputs, for counting FLOPs, but "
            f"got {type(inputs).__name__}. Use complexity 'parameters' or a function of the sample."
        )
    return inputs[:2]


@contextmanager
def redirected_log(module: Any, log: Log) -> Iterator[None]:
    """Send what ``module.log`` is called with to ``log`` while the context lasts."""
    own = vars(module).get("log")
    module.log = log
    try:
        yield
    finally:
        if own is None:
            del module.log
        else:
            module.log = own


def batch_size(batch: Any) -> int:
    """Return the number of examples of a batch: the length of its first tensor."""
    if isinstance(batch, Tensor):
        return batch.shape[0]
    if isinstance(batch, dict):
        return batch_size(next(iter(batch.values())))
    if isinstance(batch, (list, tuple)):
        return batch_size(batch[0])
    return 1


def forward_inputs(module: Any, batch: Any) -> Any:
    """Run the model on the inputs of a training batch, for BN statistics."""
    inputs = batch[0] if isinstance(batch, (list, tuple)) else batch
    return module.model(inputs)
