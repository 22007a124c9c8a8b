"""A toy space with a regularising layer that draws no random numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nni_supernet_ext.testing.toys import ToySpace


class Damping(nn.Module):
    """Shrink activations in training by a rate: what dropout does in the mean, without its randomness.

    The laws compare trainings bit for bit under different global seeds, which dropout's random numbers forbid.

    Args:
        rate: Share taken away in training mode.

    Example:
        >>> Damping(0.25)(torch.ones(2))
        tensor([0.7500, 0.7500])
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` times one minus the rate in training mode, else ``x``."""
        return x * (1 - self.rate) if self.training and self.rate else x


class DampedToySpace(ToySpace):
    """The toy space with :class:`Damping` before its head.

    Example:
        >>> sorted(DampedToySpace().simplify())
        ['op', 'width']
    """

    def __init__(self) -> None:
        super().__init__()
        self.damping = Damping(0.25)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images, shape ``(N, 3, H, W)`` -> ``(N, 10)``."""
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.op(x)).mean(dim=(2, 3))
        return self.head(self.damping(x))
