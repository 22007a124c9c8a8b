"""Scores of a network before training, from one batch: baselines that any supernet's ranking must beat.

Every function leaves weights, gradients, BN statistics, modes and hooks as they were. Weights that the output does
not depend on (the candidates that a subnet of a supernet leaves out) do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from nni_supernet_ext.errors import DataError
from nni_supernet_ext.functional._scored_network import absolute_weights, without_normalization
from nni_supernet_ext.functional.batch_norm import preserved_batch_norm

__all__ = ["grad_norm", "naswot", "snip", "synflow"]

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def grad_norm(
    network: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss = nn.functional.cross_entropy
) -> float:
    """Return the sum of the Euclidean norms of the weight tensors' gradients.

    Args:
        network: The network, in the mode in which it is to run.
        inputs: Batch, shape ``(N, ...)``.
        targets: What ``loss`` compares the outputs with.
        loss: Function of outputs and targets. Default: cross entropy.

    Returns:
        Score, larger for better.

    Raises:
        DataError: The loss depends on no weight, or the score is not finite.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> grad_norm(layer, torch.tensor([[3.0, 4.0]]), torch.tensor(0.0), lambda out, _: out.sum())
        5.0

    Reference:
        Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, section 3.2.1.
    """
    pairs = _gradients(network, lambda: loss(network(inputs), targets))
    return _finite(sum(float(gradient.double().norm()) for _, gradient in pairs))


def snip(network: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss = nn.functional.cross_entropy) -> float:
    """Return how much the loss would change, to first order, if each weight were removed: the sum of absolutes.

    Args:
        network: The network, in the mode in which it is to run.
        inputs: Batch, shape ``(N, ...)``.
        targets: What ``loss`` compares the outputs with.
        loss: Function of outputs and targets. Default: cross entropy.

    Returns:
        ``sum |w * dL/dw|``, larger for better.

    Raises:
        DataError: The loss depends on no weight, or the score is not finite.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, -2.0]]))
        >>> snip(layer, torch.tensor([[3.0, 4.0]]), torch.tensor(0.0), lambda out, _: out.sum())
        11.0

    Reference:
        Lee et al., "SNIP: Single-Shot Network Pruning Based on Connection Sensitivity", ICLR 2019; summed over the
        network as in Abdelfattah et al., ICLR 2021, Eq. 1.
    """
    pairs = _gradients(network, lambda: loss(network(inputs), targets))
    return _finite(sum(float(_products(*pair).abs().sum()) for pair in pairs))


def synflow(network: nn.Module, inputs: Tensor) -> float:
    """Return the synaptic flow: the sum over weights of ``w * dR/dw`` in the network of absolute weights.

    ``R`` is the sum of the outputs for an input of ones. Nothing is learnt about the data, only its shape is used.

    Args:
        network: The network.
        inputs: Batch of the right shape ``(N, ...)``; its first example's shape, dtype and device are used.

    Returns:
        Score, larger for better. It grows with the power of depth; where it overflows, pass ``network.double()``.

    Raises:
        DataError: The output depends on no weight, or the score is not finite.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, -2.0]]))
        >>> synflow(layer, torch.tensor([[3.0, 4.0]]))
        3.0

    Reference:
        Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow", NeurIPS
        2020, Eq. 2; as a score of networks: Abdelfattah et al., ICLR 2021, Eq. 1.

    Deviations:
        Batch-norm layers pass their input on; the paper's networks for the theorem have none.
    """
    ones = torch.ones_like(inputs[:1])
    with absolute_weights(network), without_normalization(network):
        pairs = _gradients(network, lambda: network(ones).sum())
        return _finite(sum(float(_products(*pair).sum()) for pair in pairs))


def naswot(network: nn.Module, inputs: Tensor, activations: Sequence[type[nn.Module]] = (nn.ReLU,)) -> float:
    """Return how differently the units switch for different examples: the log-determinant of their kernel.

    Two examples agree in the units that are on for both or off for both; the kernel counts these.

    Args:
        network: The network, in the mode in which it is to run.
        inputs: Batch, shape ``(N, ...)``.
        activations: Modules whose outputs are on where positive. Default: ReLU.

    Returns:
        ``log |det K|``, larger for better; minus infinity where two examples switch all units alike.

    Raises:
        DataError: No such module ran.

    Example:
        >>> relu = nn.ReLU()
        >>> naswot(relu, torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, -1.0]]))  # log(3 * 3 - 2 * 2)
        1.609...

    Reference:
        Mellor et al., "Neural Architecture Search without Training", ICML 2021, section 3.
    """
    kernel = torch.zeros(len(inputs), len(inputs), dtype=torch.float64, device=inputs.device)
    ran = []

    def count(module: nn.Module, arguments: object, output: Tensor) -> None:
        on = (output.detach().flatten(1) > 0).double()
        kernel.add_(on @ on.T + (1 - on) @ (1 - on).T)
        ran.append(module)

    kinds = tuple(activations)
    hooks = [part.register_forward_hook(count) for part in network.modules() if isinstance(part, kinds)]
    try:
        with torch.no_grad(), preserved_batch_norm(network):
            network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise DataError(
            f"Argument `network` is expected to run modules of {[kind.__name__ for kind in kinds]}, but got none. "
            "Name its activation modules; functions such as `torch.relu` are not seen."
        )
    return float(torch.linalg.slogdet(kernel).logabsdet)


def _gradients(network: nn.Module, objective: Callable[[], Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return the weights that the objective depends on, each with its gradient."""
    weights = [p for p in network.parameters() if p.requires_grad]
    with torch.enable_grad(), preserved_batch_norm(network):
        value = objective()
        found = torch.autograd.grad(value, weights, allow_unused=True) if value.requires_grad else ()
    pairs = [(w.detach(), g) for w, g in zip(weights, found, strict=False) if g is not None]
    if not pairs:
        raise DataError(
            "Argument `network` is expected to have weights that the score depends on, but got none. Give a "
            "network with trainable parameters."
        )
    return pairs


def _products(weight: Tensor, gradient: Tensor) -> Tensor:
    # Factors in half precision have products that it cannot hold.
    return weight.double() * gradient.double()


def _finite(score: float) -> float:
    if not abs(score) < float("inf"):
        raise DataError(
            f"The score is expected to be finite, but got {score}. Check weights and inputs, or score the network "
            "in double precision."
        )
    return score
