"""How easily a network trains, read from the neural tangent kernel of a small batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


def neural_tangent_kernel(
    forward: Callable[[Tensor], Tensor], parameters: list[nn.Parameter], inputs: Tensor
) -> Tensor:
    """Compute the empirical neural tangent kernel of the summed outputs, example against example.

    Args:
        forward: The network.
        parameters: Its weights; those that the output does not depend on count as zero. Their ``grad`` is left
            alone.
        inputs: Batch, shape ``(N, ...)``. Memory is N gradients.

    Returns:
        Kernel, shape ``(N, N)``, float64, on the CPU.

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
    if not outputs.requires_grad:
        raise DataError(
            "Argument `parameters` is expected to hold weights that the output depends on, but got none. Give the "
            "network's trainable parameters."
        )
    rows = []
    for index in range(len(outputs)):
        gradients = torch.autograd.grad(
            outputs[index], parameters, retain_graph=index + 1 < len(outputs), allow_unused=True
        )
        rows.append(torch.cat([g.flatten().float() for g in gradients if g is not None]))
    jacobian = torch.stack(rows)
    return (jacobian @ jacobian.T).double().cpu()


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
