"""Weight decay for weights only: not for batch normalisation and biases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from nni_supernet_ext.errors import ConfigurationError

__all__ = ["decay_groups", "weights_only_decay"]


def decay_groups(parameters: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into those that weight decay shrinks and those it leaves alone.

    Left alone are tensors of fewer than two dimensions: biases, and the scales and shifts of normalisation
    layers.

    Args:
        parameters: ``model.parameters()``.
        weight_decay: Decay of the weights, at least 0.

    Returns:
        Parameter groups for an optimizer, each with its ``weight_decay``; a group without members is left
        out.

    Raises:
        ConfigurationError: Negative ``weight_decay``; parameter groups or named parameters.

    Example:
        >>> from torch import nn
        >>> groups = decay_groups(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).parameters(), 1e-5)
        >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
        [(1, 1e-05), (3, 0.0)]

    Reference:
        He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", CVPR 2019,
        section 3.1 (no bias decay).
    """
    if not weight_decay >= 0:
        raise ConfigurationError(
            f"Argument `weight_decay` is expected to be a number of at least 0, but got {weight_decay!r}. "
            "Use 0 for none."
        )
    listed = _tensors(parameters)
    groups = [
        {"params": [p for p in listed if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in listed if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def weights_only_decay(optimizer: Callable[..., Optimizer], **settings: Any) -> Callable[..., Optimizer]:
    """Make an optimizer class that does not decay biases and normalisation layers.

    The result takes the place of an optimizer class, for example as ``optimizer=`` of NNI's
    ``Classification``.

    Args:
        optimizer: Optimizer class, for example ``torch.optim.SGD``.
        **settings: Its further arguments, for example ``momentum=0.9, nesterov=True``.

    Returns:
        Function of ``(parameters, lr=..., weight_decay=...)`` that makes the optimizer.

    Raises:
        ConfigurationError: ``weight_decay`` among the settings: an evaluator always passes its own, by default 0,
            which would silently take its place.

    Example:
        >>> from torch import nn
        >>> from torch.optim import SGD
        >>> make = weights_only_decay(SGD, momentum=0.9, nesterov=True)
        >>> optimizer = make(nn.Linear(2, 3).parameters(), lr=0.1, weight_decay=1e-5)
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [1e-05, 0.0]
    """
    if "weight_decay" in settings:
        raise ConfigurationError(
            "Argument `weight_decay` is expected not to be among the fixed settings, but got "
            f"{settings['weight_decay']!r}. Give it to the evaluator (`ClassificationModule(weight_decay=...)`) or "
            "at the call."
        )
    return partial(_build, optimizer, settings)


def _tensors(parameters: Iterable[Tensor]) -> list[Tensor]:
    listed = list(parameters)
    for parameter in listed:
        if not isinstance(parameter, Tensor):
            raise ConfigurationError(
                f"Argument `parameters` is expected to hold tensors, but got a {type(parameter).__name__}. Give "
                "`model.parameters()`, without names or groups."
            )
    return listed


def _build(
    optimizer: Callable[..., Optimizer],
    settings: dict[str, Any],
    parameters: Iterable[Tensor],
    weight_decay: float = 0.0,
    **arguments: Any,
) -> Optimizer:
    return optimizer(decay_groups(parameters, weight_decay), **{**settings, **arguments})
