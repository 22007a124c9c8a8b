"""Images held in memory: batches cost indexing and, where wanted, one random change per image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nni.nas.evaluator.pytorch import DataLoader
from protocols import Protocol
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from nni_supernet_ext.benchmarks.digit_images import digit_images, with_noise
from nni_supernet_ext.errors import ConfigurationError

Batch = tuple[Tensor, Tensor]
_MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
_STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(1, 3, 1, 1)
_SHEETS = [f"cifar10_train_{sheet}.webp" for sheet in range(1, 6)]


@dataclass(frozen=True)
class Images:
    """Images of shape [N, C, S, S], normalized, and labels of shape [N].

    `change` is the random change of a training batch, made anew at each use from the generator it is given; None
    for none.
    """

    x_train: Tensor
    y_train: Tensor
    x_valid: Tensor
    y_valid: Tensor
    change: Callable[[Batch, torch.Generator], Batch] | None = None

    def to(self, device: str) -> Images:
        """Move everything to a device: batches made there need no transfer."""
        parts = {name: getattr(self, name).to(device) for name in ("x_train", "y_train", "x_valid", "y_valid")}
        return replace(self, **parts)


def noisy_digits(protocol: Protocol) -> Images:
    """Return the images of the DigitCells benchmark; training images get fresh noise at each use."""
    digits = digit_images()
    _check_counts(protocol, len(digits.y_train), len(digits.y_valid), "scikit-learn's digits")
    layout = _layout(protocol)

    def noisy(batch: Batch, generator: torch.Generator) -> Batch:
        return with_noise(batch[0], generator).contiguous(memory_format=layout), batch[1]

    chosen = slice(protocol.train_images), slice(protocol.evaluation_images)
    return Images(
        digits.x_train[chosen[0]],
        digits.y_train[chosen[0]],
        digits.x_valid[chosen[1]].contiguous(memory_format=layout),
        digits.y_valid[chosen[1]],
        noisy if protocol.augment else None,
    )


def cifar_images(folder: Path, protocol: Protocol) -> Images:
    """Read the CIFAR-10 images a protocol needs.

    Args:
        folder: Holds either the five sheets ``cifar10_train_<1..5>.webp`` with ``cifar10_labels.npz``, or, for
            at most 5,000 training and 3,000 evaluation images, ``cifar10_small.npz``.
        protocol: Says how many images of which size.

    Returns:
        Training images from the benchmark's training half and evaluation images from its validation half, or, where
        the protocol uses the whole training set, from its beginning and its end.

    Raises:
        FileNotFoundError: The folder holds neither.
        ConfigurationError: It holds fewer or smaller images than the protocol needs, or not the whole training set
            that it asks for.
    """
    if protocol.image_size > 32:
        raise ConfigurationError(
            f"Setting `image_size` is expected to be at most 32, the side of CIFAR-10's images, but got "
            f"{protocol.image_size}. Use 0 for the images as they are."
        )
    if all((folder / sheet).is_file() for sheet in _SHEETS):
        arrays = _from_sheets(folder, protocol)
    elif (folder / "cifar10_small.npz").is_file():
        arrays = _from_small(folder, protocol)
    else:
        raise FileNotFoundError(f"{folder} holds neither {_SHEETS[0]} ... nor cifar10_small.npz.")
    _check_counts(protocol, len(arrays[0]), len(arrays[2]), str(folder))
    return in_memory(*arrays, protocol)


def in_memory(x_train: Any, y_train: Any, x_valid: Any, y_valid: Any, protocol: Protocol) -> Images:
    """Prepare as many images as a protocol needs.

    Args:
        x_train: Pixels of shape [N, 32, 32, 3], 0 to 255.
        y_train: Their labels.
        x_valid: Pixels to evaluate on.
        y_valid: Their labels.
        protocol: Says how many images of which size.

    Returns:
        Images, with random shifts and mirroring where the protocol augments.
    """
    train, valid = slice(protocol.train_images), slice(protocol.evaluation_images)
    side = protocol.image_size or x_train.shape[1]
    change = Shift(max(1, side // 8), _layout(protocol)) if protocol.augment else None
    return Images(
        _prepared(x_train[train], protocol),
        torch.from_numpy(y_train[train].astype(np.int64)),
        _prepared(x_valid[valid], protocol),
        torch.from_numpy(y_valid[valid].astype(np.int64)),
        change,
    )


def _check_counts(protocol: Protocol, train: int, valid: int, source: str) -> None:
    """Refuse to train or evaluate on fewer images than the protocol says."""
    if train < protocol.train_images or valid < protocol.evaluation_images:
        raise ConfigurationError(
            f"Settings `train_images` and `evaluation_images` are expected to be at most {train} and {valid}, what "
            f"there is of {source}, but got {protocol.train_images} and {protocol.evaluation_images} in protocol "
            f"`{protocol.name}`. Lower them."
        )


def _from_sheets(folder: Path, protocol: Protocol) -> tuple[Any, Any, Any, Any]:
    from PIL import Image

    with np.load(folder / "cifar10_labels.npz") as labels:
        y = labels["y_train"]
        train, valid = labels["nb201_train_idx"], labels["nb201_valid_idx"]
    tiles = []
    for sheet in _SHEETS:
        with Image.open(folder / sheet) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        rows, columns = pixels.shape[0] // 32, pixels.shape[1] // 32
        tiles.append(pixels.reshape(rows, 32, columns, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3))
    x = np.concatenate(tiles)
    if protocol.whole_train_set:
        end = len(x) - protocol.evaluation_images
        return x[:end], y[:end], x[end:], y[end:]
    return x[train], y[train], x[valid], y[valid]


def _from_small(folder: Path, protocol: Protocol) -> tuple[Any, Any, Any, Any]:
    if protocol.whole_train_set:
        raise ConfigurationError(
            f"Setting `whole_train_set` is expected to be false for the images in cifar10_small.npz, but got true. "
            f"Put the sheets {_SHEETS[0]} ... into {folder}."
        )
    with np.load(folder / "cifar10_small.npz") as small:
        x_valid = np.concatenate([small["x_valid"], small["x_holdout"]])
        y_valid = np.concatenate([small["y_valid"], small["y_holdout"]])
        return small["x_train"], small["y_train"], x_valid, y_valid


def _prepared(pixels: Any, protocol: Protocol) -> Tensor:
    """Shrink, normalize and lay out images of shape [N, 32, 32, 3]."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    if protocol.image_size:
        x = torch.nn.functional.adaptive_avg_pool2d(x, protocol.image_size)
    x = (x - _MEAN) / _STD
    return x.contiguous(memory_format=_layout(protocol))


def _layout(protocol: Protocol) -> torch.memory_format:
    return torch.channels_last if protocol.channels_last else torch.contiguous_format


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a small tensor; a GPU is not waited for, as it would be for memory that is not pinned."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class _Tensors(Dataset[Any]):
    """Give whole batches at once: indexing a tensor is much cheaper than collating single examples."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        chosen = _sent(torch.tensor(indices), self.x.device)
        return self.x[chosen], self.y[chosen]


class EpochShuffle(Sampler[int]):
    """Shuffle by seed and epoch only, so that a resumed training sees the batches it would have seen.

    Lightning announces each epoch through `set_epoch`. The augmentation draws from the same generator.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.generator = torch.Generator()
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Start the given epoch's random numbers."""
        self.generator.manual_seed(1_000_003 * self.seed + epoch)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(self.size, generator=self.generator).tolist()


class Shift:
    """Shift every image by up to `reach` pixels with black borders, and mirror half of them."""

    def __init__(self, reach: int, layout: torch.memory_format) -> None:
        self.reach, self.layout = reach, layout
        self._black = -_MEAN / _STD

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        x, y = batch
        n, channels, height, width = x.shape
        self._black = self._black.to(x)  # a copy to another device once, not at each batch
        padded = self._black.expand(n, channels, height + 2 * self.reach, width + 2 * self.reach).clone()
        padded[:, :, self.reach : self.reach + height, self.reach : self.reach + width] = x
        top, left = torch.randint(2 * self.reach + 1, (2, n, 1), generator=generator)
        mirrored = torch.rand(n, 1, generator=generator) < 0.5
        column = torch.arange(width).expand(n, width)
        rows = top + torch.arange(height)
        columns = left + torch.where(mirrored, column.flip(1), column)
        rows, columns = _sent(rows, x.device), _sent(columns, x.device)  # drawn on the CPU: equal on all devices
        shifted = padded[
            torch.arange(n, device=x.device).view(n, 1, 1, 1),
            torch.arange(channels, device=x.device).view(1, channels, 1, 1),
            rows.view(n, 1, height, 1),
            columns.view(n, 1, 1, width),
        ]
        return shifted.contiguous(memory_format=self.layout), y


@dataclass(frozen=True)
class Collate:
    """Give a batch as the dataset made it, changed at random where the images say so."""

    change: Callable[[Batch, torch.Generator], Batch] | None = None
    generator: torch.Generator | None = None

    def __call__(self, batch: Batch) -> Batch:
        return batch if self.change is None or self.generator is None else self.change(batch, self.generator)


def train_loader(images: Images, protocol: Protocol, seed: int) -> Any:
    """Make the shuffled training loader of one run, with its random changes of images."""
    sampler = EpochShuffle(len(images.y_train), seed)
    return DataLoader(
        _Tensors(images.x_train, images.y_train),
        batch_size=protocol.batch_size,
        sampler=sampler,
        drop_last=protocol.drop_last,
        collate_fn=Collate(images.change, sampler.generator),
    )


def valid_loader(images: Images, protocol: Protocol) -> Any:
    """Make the loader of the evaluation images, in a fixed order."""
    return DataLoader(
        _Tensors(images.x_valid, images.y_valid), batch_size=protocol.evaluation_batch, collate_fn=Collate()
    )
