"""Stochastic gradient descent with one momentum per cluster of subnets (momentum separation)."""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from nni_supernet_ext.errors import ConfigurationError

__all__ = ["MomentumBuffers", "separated_momentum_step"]

MomentumBuffers: TypeAlias = MutableMapping[Hashable, MutableMapping[int, Tensor]]
"""Momentum of every cluster: cluster -> position of the parameter -> momentum of the parameter's shape."""


@torch.no_grad()
def separated_momentum_step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    buffers: MomentumBuffers,
    cluster: Hashable,
    *,
    lr: float,
    momentum: float,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> None:
    """Make one SGD step in place with the momentum of the active subnet's cluster.

    The momenta of the other clusters are neither read nor decayed. With a single cluster this is
    ``torch.optim.SGD``; with K clusters it is K such optimizers that share the parameters and take turns.

    Args:
        params: Parameters, changed in place; always all of them, in the same order.
        grads: Gradients in the order of ``params``, each of its parameter's shape. None leaves the parameter
            and its momentum untouched, weight decay included. Never changed.
        buffers: Momenta of all clusters, changed in place; start with an empty dict. Made of plain dicts and
            tensors, so that ``torch.save`` stores it. Stays empty if ``momentum`` is 0.
        cluster: Cluster of the active subnet, any hashable value.
        lr: Learning rate, at least 0.
        momentum: Momentum factor (the paper's beta), at least 0.
        dampening: How much of the gradient is kept out of the momentum, default 0. As in torch it does not
            apply to the first step of a momentum, which starts as the gradient itself.
        weight_decay: L2 penalty added to the gradient, hence part of the momentum; at least 0.
        nesterov: Whether to use Nesterov momentum; needs ``momentum > 0`` and ``dampening == 0``.

    Raises:
        ConfigurationError: If the lengths or shapes disagree, or a number is outside of its range.

    Example:
        >>> weight, buffers = torch.zeros(1), {}
        >>> for cluster in ("a", "b", "a"):
        ...     separated_momentum_step([weight], [torch.ones(1)], buffers, cluster, lr=0.5, momentum=0.5)
        >>> weight, buffers
        (tensor([-1.7500]), {'a': {0: tensor([1.5000])}, 'b': {0: tensor([1.])}})

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025,
        section 3.3: momentum separation.
    """
    _check_settings(lr, momentum, dampening, weight_decay, nesterov)
    _check_tensors(params, grads)
    own = buffers.setdefault(cluster, {}) if momentum != 0 else {}
    for position, (param, grad) in enumerate(zip(params, grads, strict=True)):
        if grad is None:
            continue
        direction = grad if weight_decay == 0 else grad.add(param, alpha=weight_decay)
        if momentum != 0:
            buffer = _updated_buffer(own, position, direction, momentum, dampening)
            direction = direction.add(buffer, alpha=momentum) if nesterov else buffer
        param.add_(direction, alpha=-lr)


def _updated_buffer(
    own: MutableMapping[int, Tensor], position: int, grad: Tensor, momentum: float, dampening: float
) -> Tensor:
    """Take the gradient into the cluster's momentum of one parameter and return that momentum."""
    buffer = own.get(position)
    if buffer is None:
        own[position] = buffer = grad.detach().clone()
        return buffer
    if buffer.shape != grad.shape:
        raise ConfigurationError(
            f"Argument `buffers` is expected to hold a momentum of shape {tuple(grad.shape)} for parameter "
            f"{position}, but got {tuple(buffer.shape)}. Pass all parameters in the same order at every step."
        )
    return buffer.mul_(momentum).add_(grad, alpha=1 - dampening)


def _check_settings(lr: float, momentum: float, dampening: float, weight_decay: float, nesterov: bool) -> None:
    """Raise if a number is outside of its range (NaN included)."""
    problems = [
        f"Argument `{name}` is expected to be at least 0, but got {value}. Use 0 to switch it off."
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay))
        if not value >= 0
    ]
    if nesterov and not (momentum > 0 and dampening == 0):
        problems.append(
            "Argument `nesterov` is expected to be False unless `momentum` > 0 and `dampening` == 0, but "
            f"got True with momentum {momentum} and dampening {dampening}. Change one of the three."
        )
    if problems:
        raise ConfigurationError(problems)


def _check_tensors(params: Sequence[Tensor], grads: Sequence[Tensor | None]) -> None:
    """Raise, before anything is changed, if the gradients do not fit the parameters."""
    if len(params) != len(grads):
        raise ConfigurationError(
            f"Argument `grads` is expected to have one entry per parameter ({len(params)}), but got "
            f"{len(grads)}. Put None where a parameter has no gradient."
        )
    for position, (param, grad) in enumerate(zip(params, grads, strict=True)):
        if grad is not None and grad.shape != param.shape:
            raise ConfigurationError(
                f"Argument `grads` is expected to have shape {tuple(param.shape)} at position {position}, "
                f"but got {tuple(grad.shape)}. Pass the gradients in the order of `params`."
            )
