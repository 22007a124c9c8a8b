"""The NAS-Bench-Macro search space as an NNI model space: a chain of eight searched layers."""

from __future__ import annotations

from collections.abc import Iterator

from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from nni_supernet_ext._integers import require_integers
from nni_supernet_ext.spaces.nasbench_macro_arch import (
    NASBENCH_MACRO_BLOCKS,
    NASBENCH_MACRO_LABELS,
    NASBENCH_MACRO_OPERATIONS,
    NASBENCH_MACRO_STAGES,
)

__all__ = ["NasBenchMacro", "nasbench_macro"]


class InvertedBottleneck(nn.Module):
    """Expand the channels, filter each, project; added to the input where the shape allows.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        stride: Stride of the filter.
        expansion: Hidden channels per input channel.
        kernel: Kernel size of the filter, odd.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, kernel: int) -> None:
        super().__init__()
        hidden = expansion * inputs
        self.expand = conv_norm(inputs, hidden, 1)
        self.filter = conv_norm(hidden, hidden, kernel, stride, groups=hidden)
        self.project = conv_norm(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Transform features, shape ``(N, C, H, W)`` -> ``(N, C', H / stride, W / stride)``."""
        branch = self.project(self.filter(self.expand(x).relu()).relu())
        return x + branch if self.residual else branch


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Build a convolution without bias and its batch normalization."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class NasBenchMacro(ModelSpace):
    """Build the NAS-Bench-Macro search space: eight layers in stages of two, three and three.

    The first layer of a stage halves the image and doubles the channels. Labels are ``layer0`` ... ``layer7``;
    candidates are ``identity``, ``mb3_k3`` and ``mb6_k5`` (inverted bottlenecks of expansion 3 and 6, kernel 3 and
    5). Where a stage begins, ``identity`` is a 1x1 convolution with normalization that changes the shape.

    Args:
        channels: Output channels of the stem; the three stages have 2, 4 and 8 times as many. Default: 32.
        head_channels: Features before the classifier. Default: 1280.
        n_classes: Outputs of the classifier. Default: 10.
        in_channels: Channels of the image. Default: 3.

    Raises:
        ConfigurationError: A size is not a positive integer.

    Example:
        >>> space = NasBenchMacro(channels=4, head_channels=32)
        >>> space.simplify()['layer0'].values
        ['identity', 'mb3_k3', 'mb6_k5']

    Reference:
        Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021.
    """

    def __init__(
        self, channels: int = 32, head_channels: int = 1280, n_classes: int = 10, in_channels: int = 3
    ) -> None:
        super().__init__()
        sizes = {"channels": channels, "head_channels": head_channels}
        require_integers("Pass 1 or more.", **sizes, n_classes=n_classes, in_channels=in_channels)
        self.stem = nn.Sequential(*conv_norm(in_channels, channels, 3), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*_layers(channels))
        self.head = nn.Sequential(
            *conv_norm(channels * 2 ** len(NASBENCH_MACRO_STAGES), head_channels, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(head_channels, n_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Classify images, shape ``(N, C, H, W)`` -> ``(N, n_classes)``."""
        return self.head(self.layers(self.stem(images)))


def nasbench_macro(
    channels: int = 32, head_channels: int = 1280, n_classes: int = 10, in_channels: int = 3
) -> NasBenchMacro:
    """Build the NAS-Bench-Macro search space; the function form of `NasBenchMacro`, with the same arguments.

    Args:
        channels: Output channels of the stem. Default: 32.
        head_channels: Features before the classifier. Default: 1280.
        n_classes: Outputs of the classifier. Default: 10.
        in_channels: Channels of the image. Default: 3.

    Returns:
        The search space, to be given to a strategy.

    Raises:
        ConfigurationError: A size is not a positive integer.

    Example:
        >>> len(nasbench_macro(channels=4, head_channels=32).simplify())
        8

    Reference:
        Su et al., CVPR 2021.
    """
    return NasBenchMacro(channels, head_channels, n_classes, in_channels)


def _layers(width: int) -> Iterator[LayerChoice]:
    labels = iter(NASBENCH_MACRO_LABELS)
    for blocks in NASBENCH_MACRO_STAGES:
        for stride in [2] + [1] * (blocks - 1):
            outputs = width * stride
            candidates = {name: _candidate(name, width, outputs, stride) for name in NASBENCH_MACRO_OPERATIONS}
            yield LayerChoice(candidates, label=next(labels))
            width = outputs


def _candidate(name: str, inputs: int, outputs: int, stride: int) -> nn.Module:
    if name == "identity":
        return nn.Identity() if stride == 1 else conv_norm(inputs, outputs, 1, stride)
    return InvertedBottleneck(inputs, outputs, stride, *NASBENCH_MACRO_BLOCKS[name])
