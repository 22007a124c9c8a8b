"""Change a network for the time of a score, and put everything back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nni_supernet_ext.functional._module_modes import preserved_modes

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
    layers = [module for module in modules if isinstance(module, _NORMALIZATIONS)]
    # A forward of the layer's own, if something has wrapped it, is put back; else the class's shows again.
    wrapped = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            # Instead of running it: without running statistics it refuses one value per channel.
            vars(layer)["forward"] = _same
        with preserved_modes(network):
            for module in modules:
                module.training = False
            yield
    finally:
        for layer, forward in zip(layers, wrapped, strict=True):
            del vars(layer)["forward"]
            if forward is not None:
                vars(layer)["forward"] = forward


def _same(input: Tensor) -> Tensor:
    return input
