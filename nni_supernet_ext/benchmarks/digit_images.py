"""The images of the DigitCells benchmark: scikit-learn's handwritten digits under noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

__all__ = ["DigitImages", "digit_images", "with_noise"]

NOISE = 0.3
"""Standard deviation of the noise on images whose black is 0 and whose white is 1."""
_TRAINING, _VALIDATION = 512, 585  # of 1,797; the other 700 are the test images
_ORDER_SEED, _VALIDATION_SEED, _TEST_SEED = 0, 1, 2


@dataclass(frozen=True)
class DigitImages:
    """Images of shape ``(N, 1, 8, 8)`` with their labels of shape ``(N,)``, 0..9.

    Attributes:
        x_train: 512 clean training images in 0..1; add fresh noise with :func:`with_noise` whenever they are used.
        y_train: Their labels.
        x_valid: 585 validation images with fixed noise.
        y_valid: Their labels.
        x_test: 700 test images with fixed noise.
        y_test: Their labels.

    Example:
        >>> images = digit_images()
        >>> noisy = with_noise(images.x_train, torch.Generator().manual_seed(0))
        >>> noisy.shape, images.y_train.shape, int(images.y_train.max())
        (torch.Size([512, 1, 8, 8]), torch.Size([512]), 9)
    """

    x_train: Tensor
    y_train: Tensor
    x_valid: Tensor
    y_valid: Tensor
    x_test: Tensor
    y_test: Tensor


def digit_images() -> DigitImages:
    """Return the three disjoint parts of the digits; the same in every process.

    Returns:
        Images and labels. Nothing is downloaded: the digits come with scikit-learn.

    Example:
        >>> images = digit_images()
        >>> images.x_train.shape, images.x_valid.shape, images.x_test.shape
        (torch.Size([512, 1, 8, 8]), torch.Size([585, 1, 8, 8]), torch.Size([700, 1, 8, 8]))

    Reference:
        E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.
    """
    digits = load_digits()
    order = np.random.default_rng(_ORDER_SEED).permutation(len(digits.target))
    x = torch.from_numpy(digits.images[order] / 16).float().unsqueeze(1)
    y = torch.from_numpy(digits.target[order]).long()
    (x_train, x_valid, x_test), (y_train, y_valid, y_test) = (
        torch.split(part, [_TRAINING, _VALIDATION, len(y) - _TRAINING - _VALIDATION]) for part in (x, y)
    )
    return DigitImages(
        x_train,
        y_train,
        with_noise(x_valid, torch.Generator().manual_seed(_VALIDATION_SEED)),
        y_valid,
        with_noise(x_test, torch.Generator().manual_seed(_TEST_SEED)),
        y_test,
    )


def with_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images with Gaussian noise of standard deviation 0.3 added.

    Args:
        images: Clean images of any shape, black 0, white 1.
        generator: Source of the noise, on the CPU whatever the images' device: the noise is the same everywhere.

    Returns:
        New images of the same shape.

    Example:
        >>> black = torch.zeros(20_000)
        >>> round(float(with_noise(black, torch.Generator().manual_seed(0)).std()), 2)
        0.3
    """
    return images + NOISE * torch.randn(images.shape, generator=generator).to(images.device)
