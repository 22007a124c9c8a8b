"""The AttentiveNAS search space: mobile networks of elastic width, depth, kernel, expansion and resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nni
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear, Repeat
from torch import Tensor, nn
from torch.nn import functional as F

from nni_supernet_ext.errors import SpaceError
from nni_supernet_ext.spaces.attentive_blocks import ConvNormAct, MobileBlock, Resize, pooled

__all__ = ["AttentiveMobileNet", "Stage", "attentive_mobilenet", "attentive_mobilenet_cifar"]


@dataclass(frozen=True)
class Stage:
    """Describe the blocks of one stage; all of them share width, kernel and expansion.

    Args:
        widths: Candidates for the output channels, multiples of 8.
        depths: Candidates for the number of blocks, consecutive.
        expansions: Candidates for the hidden channels per input channel.
        stride: Stride of the first block.
        squeeze: Whether the blocks have squeeze and excitation.
        kernels: Candidates for the kernel size.

    Raises:
        SpaceError: Depths that are not consecutive.

    Example:
        >>> Stage((16, 24), (1, 2), (1,), stride=1).squeeze
        False
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    expansions: tuple[int, ...]
    stride: int
    squeeze: bool = False
    kernels: tuple[int, ...] = (3, 5)

    def __post_init__(self) -> None:
        if not self.depths or sorted(self.depths) != list(range(min(self.depths), max(self.depths) + 1)):
            raise SpaceError(
                f"Argument `depths` is expected to hold consecutive numbers, but got {self.depths}. Give every "
                "number of blocks from the least to the most."
            )


IMAGENET_STAGES = (
    Stage((16, 24), (1, 2), (1,), 1),
    Stage((24, 32), (3, 4, 5), (4, 5, 6), 2),
    Stage((32, 40), (3, 4, 5, 6), (4, 5, 6), 2, squeeze=True),
    Stage((64, 72), (3, 4, 5, 6), (4, 5, 6), 2),
    Stage((112, 120, 128), (3, 4, 5, 6, 7, 8), (4, 5, 6), 1, squeeze=True),
    Stage((192, 200, 208, 216), (3, 4, 5, 6, 7, 8), (6,), 2, squeeze=True),
    Stage((216, 224), (1, 2), (6,), 1, squeeze=True),
)
CIFAR_STAGES = (
    Stage((8, 16), (1, 2), (1,), 1),
    Stage((16, 24), (1, 2, 3), (3, 4), 2),
    Stage((24, 32), (1, 2, 3), (3, 4), 2, squeeze=True),
    Stage((48, 64), (1, 2), (4,), 2, squeeze=True),
)


class AttentiveMobileNet(ModelSpace):
    """Build a mobile search space in which every subnet uses a slice of the same weights.

    Channels are the first ones, kernels the centre of the largest. Labels are ``resolution``, ``stem``,
    ``head`` and, for stage i from 1, ``width_i``, ``depth_i``, ``kernel_i`` and ``expansion_i``; what has a
    single candidate has no label. Batch-norm statistics in the supernet mix all subnets: recalibrate them for
    each one that is evaluated.

    Args:
        stages: The stages in order.
        stem_widths: Candidates for the channels of the first convolution, which has stride ``stem_stride``.
        head_widths: Candidates for the features before the classifier.
        resolutions: Candidates for the side of the square input. Images are scaled inside the network, so give
            them in the largest one.
        n_classes: Outputs of the classifier.
        stem_stride: Stride of the first convolution. Default 2.
        dropout: Dropout before the classifier. Default 0.2.
        drop_path: Slope of the stochastic depth: block ``i`` of ``n``, counted from 0, has the rate
            ``drop_path * i / n``. Default 0.2.

    Example:
        >>> space = AttentiveMobileNet([Stage((8, 16), (1, 2), (4,), 2)], (8,), (32,), (16, 32), n_classes=10)
        >>> sorted(space.simplify())
        ['depth_1', 'kernel_1', 'resolution', 'width_1']

    Reference:
        Wang et al., "AttentiveNAS: Improving Neural Architecture Search via Attentive Sampling", CVPR 2021,
        supplement, table of the search space.

    Deviations:
        See :func:`attentive_mobilenet`.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        stem_widths: Sequence[int],
        head_widths: Sequence[int],
        resolutions: Sequence[int],
        n_classes: int,
        stem_stride: int = 2,
        dropout: float = 0.2,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        self.resize = _resize(resolutions)
        width = _choice("stem", stem_widths)
        self.stem = ConvNormAct(3, width, 3, stem_stride)
        n_blocks = sum(max(stage.depths) for stage in stages)
        built, done = [], 0
        for number, stage in enumerate(stages, start=1):
            rates = [drop_path * (done + index) / n_blocks for index in range(max(stage.depths))]
            blocks, width = _stage(stage, number, width, rates)
            built.append(blocks)
            done += len(rates)
        self.stages = nn.ModuleList(built)
        features = _choice("head", head_widths)
        self.expand = ConvNormAct(width, width * 6)
        self.mix = MutableConv2d(width * 6, features, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.classifier = MutableLinear(features, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images, shape ``(N, 3, H, W)`` -> ``(N, n_classes)``."""
        x = self.stem(self.resize(x))
        for stage in self.stages:
            x = stage(x)
        x = F.silu(self.mix(pooled(self.expand(x)))).flatten(1)
        return self.classifier(self.dropout(x))


def attentive_mobilenet(n_classes: int = 1000) -> AttentiveMobileNet:
    """Build the AttentiveNAS space for ImageNet, the space of AlphaNet too.

    Args:
        n_classes: Outputs of the classifier. Default 1000.

    Returns:
        The search space, for images of 288 x 288.

    Example:
        >>> space = attentive_mobilenet()
        >>> space.simplify()['depth_5'].values, space.simplify()['resolution'].values
        ([3, 4, 5, 6, 7, 8], ['192', '224', '256', '288'])

    Reference:
        Wang et al., "AttentiveNAS", CVPR 2021, supplement, table of the search space.

    Deviations:
        The tables leave open how a block that changes its width is bypassed, where squeeze and excitation is
        measured and what activates it. Average pooling with a 1x1 convolution, and a quarter of the hidden
        channels, give exactly the published FLOPs of both ends; ReLU and hard sigmoid are MobileNetV3's.
    """
    return AttentiveMobileNet(IMAGENET_STAGES, (16, 24), (1792, 1984), (192, 224, 256, 288), n_classes)


def attentive_mobilenet_cifar(n_classes: int = 10) -> AttentiveMobileNet:
    """Build a small variant of the AttentiveNAS space for images of 32 x 32, quick on a CPU.

    Args:
        n_classes: Outputs of the classifier. Default 10.

    Returns:
        The search space, for images of 32 x 32.

    Example:
        >>> sorted(attentive_mobilenet_cifar().simplify())[:3]
        ['depth_1', 'depth_2', 'depth_3']
    """
    return AttentiveMobileNet(
        CIFAR_STAGES, (8, 16), (128, 192), (24, 28, 32), n_classes, stem_stride=1, drop_path=0.1
    )


def _stage(stage: Stage, number: int, inputs: Any, rates: Sequence[float]) -> tuple[nn.Module, Any]:
    """Return the blocks of a stage and its output width."""
    width = _choice(f"width_{number}", stage.widths)
    kernel = _choice(f"kernel_{number}", stage.kernels)
    expansion = _choice(f"expansion_{number}", stage.expansions)

    def block(index: int) -> MobileBlock:
        first = index == 0
        return MobileBlock(
            inputs if first else width,
            width,
            kernel,
            expansion,
            stride=stage.stride if first else 1,
            squeeze=stage.squeeze,
            drop=rates[index],
            projects=first,
        )

    if len(stage.depths) == 1:
        return nn.Sequential(*[block(index) for index in range(stage.depths[0])]), width
    return Repeat(block, (min(stage.depths), max(stage.depths)), label=f"depth_{number}"), width


def _resize(resolutions: Sequence[int]) -> nn.Module:
    if len(resolutions) == 1:
        return Resize(resolutions[0])
    return LayerChoice({str(size): Resize(size) for size in resolutions}, label="resolution")


def _choice(label: str, candidates: Sequence[int]) -> Any:
    return candidates[0] if len(candidates) == 1 else nni.choice(label, list(candidates))
