"""Elastic building blocks of mobile networks: widths, kernels and expansions may be choices."""

from __future__ import annotations

from typing import Any

import torch
from nni.mutable import MutableExpression
from nni.nas.nn.pytorch import MutableBatchNorm2d, MutableConv2d
from torch import Tensor, nn
from torch.nn import functional as F

Size = Any
"""A number of channels or a kernel size: an int, or an NNI expression over choices."""


class Resize(nn.Module):
    """Scale images to a square size; images of that size pass unchanged.

    Args:
        size: Height and width to scale to.

    Example:
        >>> Resize(4)(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 3, 4, 4])
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Scale images, shape ``(N, C, H, W)`` -> ``(N, C, size, size)``."""
        if x.shape[-2:] == (self.size, self.size):
            return x
        return F.interpolate(x, (self.size, self.size), mode="bicubic", align_corners=False)


class StochasticDepth(nn.Module):
    """Drop whole examples of a residual branch in training, and scale up the rest.

    Args:
        p: Probability to drop an example's branch.

    Example:
        >>> StochasticDepth(0.5).eval()(torch.ones(2, 1, 1, 1)).sum()
        tensor(2.)

    Reference:
        Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop examples, shape ``(N, ...)`` unchanged."""
        if not self.training or self.p == 0:
            return x
        kept = x.new_empty(x.shape[:1] + (1,) * (x.dim() - 1)).bernoulli_(1 - self.p)
        return x * kept / (1 - self.p)


class ConvNormAct(nn.Sequential):
    """A convolution with batch normalisation and, unless told otherwise, swish."""

    def __init__(
        self,
        inputs: Size,
        outputs: Size,
        kernel: Size = 1,
        stride: int = 1,
        depthwise: bool = False,
        act: bool = True,
    ) -> None:
        convolution = MutableConv2d(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=inputs if depthwise else 1,
            bias=False,
        )
        parts: list[nn.Module] = [convolution, MutableBatchNorm2d(outputs)]
        super().__init__(*parts, *([nn.SiLU()] if act else []))


def squeezed_width(channels: Size) -> Size:
    """Return how many channels squeeze-and-excitation squeezes to: a quarter, in multiples of 8, at least one."""
    return MutableExpression.max((channels // 4 + 4) // 8 * 8, 8)


class SqueezeExcitation(nn.Module):
    """Weigh channels by a small network of their means."""

    def __init__(self, channels: Size) -> None:
        super().__init__()
        squeezed = squeezed_width(channels)
        self.squeeze = MutableConv2d(channels, squeezed, 1)
        self.excite = MutableConv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of features, shape ``(N, C, H, W)`` unchanged."""
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * F.hardsigmoid(self.excite(F.relu(self.squeeze(means))))


class Shortcut(nn.Module):
    """Carry a block's input past it: pooled where the block strides, projected where it changes the width.

    Whether the width changes is seen at the features, since the choice of widths decides it.
    """

    def __init__(self, inputs: Size, outputs: Size, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.project = MutableConv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """Add the input, shape ``(N, C, H, W)``, to the branch, shape ``(N, C', H', W')``."""
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        return branch + (x if x.shape[1] == branch.shape[1] else self.project(x))


class MobileBlock(nn.Module):
    """An inverted bottleneck: expand, filter depthwise, weigh channels, project, add the shortcut.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Kernel size of the depthwise convolution, odd.
        expansion: Hidden channels per input channel; 1 leaves the expanding convolution out.
        stride: Stride of the depthwise convolution.
        squeeze: Whether the block weighs channels.
        drop: Rate of stochastic depth; only blocks that keep width and size have it.
        projects: Whether the shortcut may have to change the width.

    Reference:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018; squeeze and
        excitation: Howard et al., "Searching for MobileNetV3", ICCV 2019.
    """

    def __init__(
        self,
        inputs: Size,
        outputs: Size,
        kernel: Size,
        expansion: Size,
        stride: int,
        squeeze: bool,
        drop: float,
        projects: bool,
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        expands = not (isinstance(expansion, int) and expansion == 1)
        self.expand = ConvNormAct(inputs, hidden) if expands else nn.Identity()
        self.filter = ConvNormAct(hidden, hidden, kernel, stride, depthwise=True)
        self.weigh = SqueezeExcitation(hidden) if squeeze else nn.Identity()
        self.project = ConvNormAct(hidden, outputs, act=False)
        self.drop = StochasticDepth(drop) if drop and not projects else nn.Identity()
        self.shortcut = Shortcut(inputs, outputs, stride) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        """Transform features, shape ``(N, C, H, W)`` -> ``(N, C', H / stride, W / stride)``."""
        branch = self.drop(self.project(self.weigh(self.filter(self.expand(x)))))
        return x + branch if self.shortcut is None else self.shortcut(x, branch)


def pooled(x: Tensor) -> Tensor:
    """Average over positions, shape ``(N, C, H, W)`` -> ``(N, C, 1, 1)``."""
    return torch.mean(x, dim=(2, 3), keepdim=True)
