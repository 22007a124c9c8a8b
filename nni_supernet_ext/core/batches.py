"""Batches on their way to the model: transfer hooks, examples for a count of operations, number of examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.utilities.data import extract_batch_size
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from nni_supernet_ext.core.model_arguments import model_arguments
from nni_supernet_ext.errors import ConfigurationError

TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
"""Lightning's hooks around a batch's way to the device, in order."""


def to_device(module: Any, batch: Any, device: torch.device, model: nn.Module | None = None) -> Any:
    """Move a batch to a device through the transfer hooks, the data module's own before the module's.

    Args:
        module: The evaluator's Lightning module.
        batch: Batch on any device.
        device: Where to move it.
        model: Whose weights set the precision. Default: the module's model.

    Returns:
        The batch as the module's steps expect it; floating-point tensors in the precision of the weights.
    """
    before, transfer, after = (_transfer_hook(module, name) for name in TRANSFER_HOOKS)
    batch = after(transfer(before(batch, 0), device, 0), 0)
    parameters = (module.model if model is None else model).parameters()
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)
    if dtype == torch.float32:
        return batch
    return apply_to_collection(batch, Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t)


def _transfer_hook(module: Any, name: str) -> Callable[..., Any]:
    """Return a hook as Lightning chooses it: the trainer's data module's where it has its own."""
    data = getattr(getattr(module, "_trainer", None), "datamodule", None)
    hook: Callable[..., Any] = getattr(data if data is not None and is_overridden(name, data) else module, name)
    return hook


def example_inputs(module: Any, batch: Any, model: nn.Module) -> Tensor:
    """Return two examples of a batch as the model takes them, for counting operations or reading its graph.

    Args:
        module: The evaluator's Lightning module.
        batch: Batch on any device: inputs, or inputs and targets.
        model: The model, which sets device and precision.

    Returns:
        Inputs of shape ``(2, ...)``, fewer where the batch has fewer.

    Raises:
        ConfigurationError: The steps call the model with anything but one tensor, or fail on the batch.
    """
    moved = to_device(module, batch, next(model.parameters()).device, model)
    args, kwargs = model_arguments(module, moved, model)
    if len(args) != 1 or kwargs or not isinstance(args[0], Tensor):
        given = ", ".join([*(type(value).__name__ for value in args), *kwargs])
        raise ConfigurationError(
            "The evaluator's steps are expected to call their model with one tensor, for counting FLOPs, but they "
            f"call it with ({given}). Use complexity 'parameters' or a function of the sample."
        )
    return args[0][:2]


def batch_size(batch: Any) -> int:
    """Return the number of examples of a batch as Lightning finds it; 1 where it finds none."""
    try:
        return extract_batch_size(batch)
    except MisconfigurationException:
        return 1
