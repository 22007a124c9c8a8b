"""Labelled images held in memory, changed a little at random for training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset


class Pictures(Dataset):
    """Normalised images with labels.

    Args:
        images: Bytes, shape ``(N, C, H, W)``.
        labels: Class of each image, shape ``(N,)``.
        mean: Mean of each channel over the training images, in 0..1, shape ``(C,)``.
        std: Standard deviation of each channel.
        padding: Black pixels put around an image before a random crop of ``size`` is taken; 0 for no crop.
        size: Height and width of the crop.
        flip: Whether every second image, at random, is mirrored.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: Tensor,
        std: Tensor,
        padding: int = 0,
        size: int | None = None,
        flip: bool = False,
    ) -> None:
        self.images, self.labels = images, labels.long()
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        self.padding, self.size, self.flip = padding, size or images.shape[-1], flip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        if self.padding:
            image = random_crop(image, self.padding, self.size)
        if self.flip and torch.rand(()) < 0.5:
            image = image.flip(-1)
        return (image.float() / 255 - self.mean) / self.std, self.labels[index]


@dataclass(frozen=True)
class Splits:
    """Images for training, for choosing (validation) and for the final table only (test)."""

    train: Pictures
    validation: Pictures
    test: Pictures
    n_classes: int = 10

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.train.images.shape[1]


def random_crop(image: Tensor, padding: int, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Pad an image, shape ``(C, H, W)``, with black and cut out a square at a random place."""
    padded = F.pad(image, [padding] * 4)
    top, left = torch.randint(padded.shape[-1] - size + 1, (2,), generator=generator).tolist()
    return padded[:, top : top + size, left : left + size]


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of bytes, shape ``(N, C, H, W)``, in 0..1."""
    # One byte histogram per channel: converting all images to floats would take four times their memory.
    channels = (images[:, channel].flatten().int() for channel in range(images.shape[1]))
    counts = torch.stack([torch.bincount(channel, minlength=256) for channel in channels])
    values, shares = torch.arange(256) / 255, counts / counts.sum(1, keepdim=True)
    mean = (shares * values).sum(1)
    return mean, ((shares * values**2).sum(1) - mean**2).sqrt()


def as_images(array: np.ndarray) -> Tensor:
    """Return bytes of shape ``(N, H, W, C)`` as a tensor ``(N, C, H, W)``."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))
