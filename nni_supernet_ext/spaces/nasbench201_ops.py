"""The layers of NAS-Bench-201: candidate operations, the cell that sums them, and the stage transition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from nni_supernet_ext.spaces.nasbench201_arch import NASBENCH201_EDGES

# node -> the (source node, edge) pairs that end in it; nodes 1, 2 and 3 in this order
_INCOMING = [
    [(int(edge[0]), edge) for edge in NASBENCH201_EDGES if edge.endswith(node)] for node in ("1", "2", "3")
]


@dataclass(frozen=True)
class BatchNormKind:
    """Build every batch normalization of one network alike.

    Args:
        affine: Learn a scale and a shift per channel.
        track_running_stats: Keep running statistics and use them in evaluation mode.
    """

    affine: bool
    track_running_stats: bool

    def __call__(self, channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, affine=self.affine, track_running_stats=self.track_running_stats)


class ReluConvNorm(nn.Module):
    """Apply ReLU, convolution and batch normalization to a tensor of shape [N, in_channels, H, W].

    The convolution has a bias exactly where the normalization learns none.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, kind: BatchNormKind):
        super().__init__()
        padding = kernel_size // 2
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=not kind.affine)
        self.norm = kind(out_channels)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(self.relu(inputs)))


class NoConnection(nn.Module):
    """Contribute nothing: return a zero of shape [] instead of a tensor full of zeros.

    The zero is a buffer, so nothing is computed; it broadcasts in any weighted sum of candidates, and the
    cell recognizes it by its shape and leaves it out of the node's sum.
    """

    zero: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.zero


class Cell(nn.ModuleDict):
    """Sum over the incoming edges at each of four nodes; the keys are `NASBENCH201_EDGES`.

    Input and output have shape [N, C, H, W]. A node that no edge contributes to is all zeros.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        nodes = [inputs]
        for incoming in _INCOMING:
            total: torch.Tensor | None = None
            for source, edge in incoming:
                contribution = self[edge](nodes[source])
                if contribution.dim() == 0:
                    continue
                total = contribution if total is None else total + contribution
            nodes.append(torch.zeros_like(inputs) if total is None else total)
        return nodes[-1]


class ResidualReduction(nn.Module):
    """Halve height and width (rounding up) and double the channels in a residual block between two stages."""

    def __init__(self, in_channels: int, kind: BatchNormKind):
        super().__init__()
        out_channels = 2 * in_channels
        self.main = nn.Sequential(
            ReluConvNorm(in_channels, out_channels, 3, 2, kind),
            ReluConvNorm(out_channels, out_channels, 3, 1, kind),
        )
        # Rounding up changes nothing for even sizes and lets odd ones meet the convolution's size.
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.shortcut(inputs) + self.main(inputs)


_BUILDERS: dict[str, Callable[[int, BatchNormKind], nn.Module]] = {
    "none": lambda channels, kind: NoConnection(),
    "skip_connect": lambda channels, kind: nn.Identity(),
    "conv_1x1": lambda channels, kind: ReluConvNorm(channels, channels, 1, 1, kind),
    "conv_3x3": lambda channels, kind: ReluConvNorm(channels, channels, 3, 1, kind),
    "avg_pool_3x3": lambda channels, kind: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
}


def build_operation(name: str, channels: int, kind: BatchNormKind) -> nn.Module:
    """Build a candidate operation that keeps the shape [N, channels, H, W]."""
    return _BUILDERS[name](channels, kind)
