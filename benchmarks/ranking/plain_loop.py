"""Training and evaluation as scripts that come with papers write them, to compare with.

Images are changed one by one by torchvision's transforms, in worker processes where wanted, and loss and accuracy
are read from the device after every batch. Subnets are activated with this package, so a network costs what it
costs elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import nni_supernet_ext  # noqa: F401 - before torchvision: makes it importable

import numpy as np  # isort: skip
import torch
from PIL import Image
from protocols import Protocol
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from nni_supernet_ext.core import Supernet

_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Pictures(Dataset[Any]):
    """Change one image at a time, as a dataset of torchvision does.

    Args:
        pixels: Shape [N, 32, 32, 3], 0 to 255.
        labels: Shape [N].
        side: Side of the images to give.
        augment: Whether to crop and mirror at random.
    """

    def __init__(self, pixels: Any, labels: Any, side: int, augment: bool) -> None:
        steps: list[Any] = [transforms.Resize(side)] if side != 32 else []
        if augment:
            steps += [transforms.RandomCrop(side, padding=max(1, side // 8)), transforms.RandomHorizontalFlip()]
        self.pixels, self.labels = pixels, labels
        self.change = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.change(Image.fromarray(self.pixels[index])), int(self.labels[index])


def picture_loader(
    pictures: Pictures, batch_size: int, shuffle: bool, workers: int, device: str
) -> DataLoader[Any]:
    """Make a loader as scripts do: pinned memory for a GPU, workers that stay."""
    return DataLoader(
        pictures,
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=workers,
        pin_memory=device == "cuda",
        persistent_workers=workers > 0,
    )


def plain_training(supernet: Supernet, protocol: Protocol, loader: DataLoader[Any], device: str) -> Iterator[float]:
    """Train single paths drawn uniformly.

    Yields:
        The mean loss of each epoch, at its end.
    """
    parameters = list(supernet.model.parameters())
    optimizer = torch.optim.SGD(
        parameters,
        lr=protocol.learning_rate,
        momentum=protocol.momentum,
        nesterov=protocol.momentum > 0,
        weight_decay=protocol.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, protocol.epochs * len(loader))
    rng = np.random.default_rng(0)
    supernet.model.train()
    for _ in range(protocol.epochs):
        losses, hits = 0.0, 0.0
        for x, y in loader:
            x, y = x.to(device), y.to(device)
            supernet.activate(supernet.domain.random(rng))
            optimizer.zero_grad()
            logits = supernet.model(x)
            loss = cross_entropy(logits, y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, protocol.clip)
            optimizer.step()
            schedule.step()
            losses += loss.item()
            hits += (logits.argmax(1) == y).float().mean().item()
        yield losses / len(loader)


def plain_evaluation(supernet: Supernet, loader: DataLoader[Any], device: str) -> Callable[[Any], float]:
    """Return what evaluates a subnet: sample -> accuracy."""

    def evaluate(sample: Any) -> float:
        supernet.activate(sample)
        supernet.model.eval()
        hits = 0.0
        with torch.no_grad():
            for x, y in loader:
                x, y = x.to(device), y.to(device)
                hits += (supernet.model(x).argmax(1) == y).sum().item()
        return hits / len(loader.dataset)  # type: ignore[arg-type]

    return evaluate
