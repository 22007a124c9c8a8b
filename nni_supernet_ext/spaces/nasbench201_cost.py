"""Parameters and multiply-adds of a NAS-Bench-201 architecture in closed form."""

from __future__ import annotations

from collections.abc import Mapping

from nni_supernet_ext.spaces.nasbench201_arch import arch_to_sample, sample_to_arch

__all__ = ["nasbench201_flops", "nasbench201_params"]


def nasbench201_params(
    architecture: Mapping[str, str] | str,
    channels: int = 16,
    cells_per_stage: int = 5,
    n_classes: int = 10,
    in_channels: int = 3,
    stages: int = 3,
) -> int:
    """Count the parameters of an architecture's stand-alone network, dead edges included.

    With the defaults this is the benchmark's own figure: 73,306 + 28,000 per 1x1 and 243,040 per 3x3
    convolution in the cell.

    Args:
        architecture: Sample or architecture string.
        channels: Output channels of the stem; the stages have 1, 2 and 4 times as many.
        cells_per_stage: Cells in each of the stages.
        n_classes: Outputs of the classifier.
        in_channels: Channels of the image.
        stages: Stages of cells.

    Returns:
        Number of parameters of `nasbench201_network` with the same arguments.

    Raises:
        SpaceError: The architecture is not one of NAS-Bench-201.

    Example:
        >>> nasbench201_params("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|")
        316346

    Reference:
        Dong and Yang, "NAS-Bench-201", ICLR 2020, Section 2.1 (macro skeleton).
    """
    n_1x1, n_3x3 = _convolutions(architecture)
    total = 9 * in_channels * channels + 2 * channels
    widths = [channels * 2**stage for stage in range(stages)]
    for width in widths:
        total += cells_per_stage * (n_1x1 * (width**2 + 2 * width) + n_3x3 * (9 * width**2 + 2 * width))
    for width in widths[1:]:
        # Two 3x3 convolutions with their normalization and the 1x1 shortcut, from half the width.
        total += 9 * width * width // 2 + 9 * width * width + width * width // 2 + 4 * width
    return total + 2 * widths[-1] + (widths[-1] + 1) * n_classes


def nasbench201_flops(
    architecture: Mapping[str, str] | str,
    channels: int = 16,
    cells_per_stage: int = 5,
    n_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    stages: int = 3,
) -> int:
    """Count the multiply-adds of an architecture's convolutions and classifier, dead edges included.

    With the defaults this is the benchmark's own figure: 7,783,050 + 3,932,160 per 1x1 and 35,389,440 per
    3x3 convolution in the cell.

    Args:
        architecture: Sample or architecture string.
        channels: Output channels of the stem; the stages have 1, 2 and 4 times as many.
        cells_per_stage: Cells in each of the stages.
        n_classes: Outputs of the classifier.
        in_channels: Channels of the image.
        image_size: Height and width of the square image in pixels.
        stages: Stages of cells.

    Returns:
        Multiply-adds for one image.

    Raises:
        SpaceError: The architecture is not one of NAS-Bench-201.

    Example:
        >>> nasbench201_flops("|nor_conv_1x1~0|+|none~0|none~1|+|none~0|none~1|none~2|")
        11715210

    Reference:
        Dong and Yang, "NAS-Bench-201", ICLR 2020, Section 2.1 (macro skeleton).

    Deviations:
        None in the count: like the benchmark it leaves out normalization, activation and pooling, and counts
        the classifier's bias but no other.
    """
    n_1x1, n_3x3 = _convolutions(architecture)
    pixels = [(-(-image_size // 2**stage)) ** 2 for stage in range(stages)]
    widths = [channels * 2**stage for stage in range(stages)]
    total = 9 * in_channels * channels * pixels[0]
    for width, area in zip(widths, pixels, strict=True):
        total += cells_per_stage * (n_1x1 + 9 * n_3x3) * width**2 * area
    for width, area in zip(widths[1:], pixels[1:], strict=True):
        total += (9 * width * width // 2 + 9 * width * width + width * width // 2) * area
    return total + (widths[-1] + 1) * n_classes


def _convolutions(architecture: Mapping[str, str] | str) -> tuple[int, int]:
    """Return how many edges hold a 1x1 and how many a 3x3 convolution."""
    arch = architecture if isinstance(architecture, str) else sample_to_arch(architecture)
    operations = list(arch_to_sample(arch).values())
    return operations.count("conv_1x1"), operations.count("conv_3x3")
