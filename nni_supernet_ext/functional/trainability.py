"""How easily a network trains, read from the neural tangent kernel of a small batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nni_supernet_ext.errors import DataError


@dataclass(frozen=True)
class Trainability:
    """Spectrum of a neural tangent kernel in two numbers.

    Attributes:
        trace: Trace over the number of examples: the mean squared gradient norm of an example. Larger trains
            faster.
        condition: Largest over smallest eigenvalue, infinite where the smallest is not positive. Smaller trains
            more evenly.

    Example:
        >>> evenly = trainability(torch.eye(3))
        >>> evenly.trace, evenly.condition
        (1.0, 1.0)
        >>> trainability(torch.ones(2, 2).mul(2.0)).condition > 1e6  # two examples that pull the same way
        True
    """

    trace: float
    condition: float


def neural_tangent_kernel(forward: Callable[[Any], Tensor], parameters: list[nn.Parameter], inputs: Any) -> Tensor:
    """Compute the empirical neural tangent kernel of the summed outputs, example against example.

    Args:
        forward: The network; returns outputs of shape ``(N, ...)``.
        parameters: Its weights; those that the output does not depend on, or that are frozen, count as zero. Their
            ``grad`` is left alone.
        inputs: What ``forward`` takes: a batch of N examples. Memory is N gradients.

    Returns:
        Kernel, shape ``(N, N)``, float64, on the CPU; computed in it from the gradients, except on devices without
        double precision (MPS).

    Raises:
        DataError: No weight influences the output.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> neural_tangent_kernel(layer, list(layer.parameters()), torch.tensor([[1.0, 0.0], [1.0, 2.0]])).tolist()
        [[1.0, 1.0], [1.0, 5.0]]

    Reference:
        Jacot et al., "Neural Tangent Kernel: Convergence and Generalization in Neural Networks", NeurIPS 2018,
        Eq. 4.
    """
    with torch.enable_grad():
        outputs = forward(inputs).flatten(1).sum(1)
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    products = [_product(block) for block in _jacobian(outputs, trainable)]
    if not products:
        raise DataError(
            "Argument `parameters` is expected to hold weights that the output depends on, but got none. Give the "
            "network's trainable parameters."
        )
    return torch.stack(products).sum(0)


def _jacobian(outputs: Tensor, parameters: list[nn.Parameter]) -> list[list[Tensor | None]]:
    """Return each weight tensor's gradients, one per output, for those that some output depends on."""
    if not outputs.requires_grad or not parameters:
        return []
    rows = [
        torch.autograd.grad(outputs[index], parameters, retain_graph=index + 1 < len(outputs), allow_unused=True)
        for index in range(len(outputs))
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    return [column for column in columns if any(gradient is not None for gradient in column)]


def _product(gradients: list[Tensor | None]) -> Tensor:
    """Multiply one weight tensor's gradients with each other; in double one tensor at a time, to save memory."""
    like = next(gradient for gradient in gradients if gradient is not None)
    dtype = torch.float32 if like.device.type == "mps" else torch.float64
    rows = torch.stack([(torch.zeros_like(like) if g is None else g).flatten() for g in gradients]).to(dtype)
    return (rows @ rows.T).cpu().double()


def trainability(kernel: Tensor) -> Trainability:
    """Read trace and condition number from a neural tangent kernel.

    Args:
        kernel: Symmetric kernel, shape ``(N, N)``.

    Returns:
        Both numbers.

    Example:
        >>> trainability(torch.tensor([[4.0, 0.0], [0.0, 2.0]]))
        Trainability(trace=3.0, condition=2.0)

    Reference:
        Condition number: Chen et al., "Neural Architecture Search on ImageNet in Four GPU Hours", ICLR 2021,
        Eq. 2. Trace: Shu et al., "Unifying and Boosting Gradient-Based Training-Free Neural Architecture Search",
        NeurIPS 2022, section 3.2.
    """
    eigenvalues = torch.linalg.eigvalsh(kernel.double())
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    condition = largest / smallest if smallest > 0 else float("inf")
    return Trainability(float(kernel.double().trace()) / len(kernel), condition)
