"""Parameters and multiply-adds of a NAS-Bench-Macro architecture in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nni_supernet_ext.spaces.nasbench_macro_arch import (
    NASBENCH_MACRO_BLOCKS,
    NASBENCH_MACRO_STAGES,
    nasbench_macro_operations,
)

__all__ = ["nasbench_macro_flops", "nasbench_macro_params"]


def nasbench_macro_params(
    architecture: Mapping[str, str] | str,
    channels: int = 32,
    head_channels: int = 1280,
    n_classes: int = 10,
    in_channels: int = 3,
) -> int:
    """Count the parameters of an architecture's network.

    Args:
        architecture: Sample, or the benchmark's eight digits.
        channels: Output channels of the stem.
        head_channels: Features before the classifier.
        n_classes: Outputs of the classifier.
        in_channels: Channels of the image.

    Returns:
        Number of parameters; with the defaults the benchmark's own figure.

    Raises:
        SpaceError: The architecture is not one of NAS-Bench-Macro.

    Example:
        >>> nasbench_macro_params("00000000"), nasbench_macro_params("00000001")
        (387882, 791594)

    Reference:
        Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021.
    """
    total, width = 9 * in_channels * channels + 2 * channels, channels
    for operation, stride in _operations(architecture):
        outputs = width * stride
        if operation in NASBENCH_MACRO_BLOCKS:
            expansion, kernel = NASBENCH_MACRO_BLOCKS[operation]
            hidden = expansion * width
            # Weights of the three convolutions, then scale and shift of their normalizations.
            total += hidden * (width + kernel**2 + outputs) + 4 * hidden + 2 * outputs
        elif stride == 2:
            total += width * outputs + 2 * outputs
        width = outputs
    return total + width * head_channels + 2 * head_channels + (head_channels + 1) * n_classes


def nasbench_macro_flops(
    architecture: Mapping[str, str] | str,
    channels: int = 32,
    head_channels: int = 1280,
    n_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
) -> int:
    """Count the multiply-adds of an architecture's convolutions and classifier for one image.

    Args:
        architecture: Sample, or the benchmark's eight digits.
        channels: Output channels of the stem.
        head_channels: Features before the classifier.
        n_classes: Outputs of the classifier.
        in_channels: Channels of the image.
        image_size: Height and width of the square image in pixels.

    Returns:
        Multiply-adds; with the defaults the benchmark's own figure. Biases, normalization and activations do not
        count.

    Raises:
        SpaceError: The architecture is not one of NAS-Bench-Macro.

    Example:
        >>> nasbench_macro_flops("00000000"), nasbench_macro_flops("00000001")
        (7713280, 14115328)

    Reference:
        Su et al., CVPR 2021.
    """
    total, width, size = 9 * in_channels * channels * image_size**2, channels, image_size
    for operation, stride in _operations(architecture):
        outputs, before, size = width * stride, size**2, -(-size // stride)
        if operation in NASBENCH_MACRO_BLOCKS:
            expansion, kernel = NASBENCH_MACRO_BLOCKS[operation]
            hidden = expansion * width
            total += hidden * width * before + hidden * (kernel**2 + outputs) * size**2
        elif stride == 2:
            total += width * outputs * size**2
        width = outputs
    return total + width * head_channels * size**2 + head_channels * n_classes


def _operations(architecture: Mapping[str, str] | str) -> Iterator[tuple[str, int]]:
    """Yield the operation and the stride of each layer."""
    operations = iter(nasbench_macro_operations(architecture))
    for blocks in NASBENCH_MACRO_STAGES:
        for block in range(blocks):
            yield next(operations), 1 if block else 2
