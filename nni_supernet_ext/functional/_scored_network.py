"""Change a network for the time of a score, and put everything back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_NORMALIZATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@contextmanager
def absolute_weights(network: nn.Module) -> Iterator[None]:
    """Make all weights their absolute values for the time being."""
    weights = list(network.parameters())
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.abs_()
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, saved in zip(weights, before, strict=True):
                weight.copy_(saved)


@contextmanager
def without_normalization(network: nn.Module) -> Iterator[None]:
    """Make batch-norm layers pass on their input, and all others run in evaluation mode."""
    modules = list(network.modules())
    modes = [module.training for module in modules]
    hooks = [
        module.register_forward_hook(lambda _, arguments, __: arguments[0])
        for module in modules
        if isinstance(module, _NORMALIZATIONS)
    ]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in zip(modules, modes, strict=True):
            module.training = training
