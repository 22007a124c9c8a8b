"""A small space, data and evaluator on which every law runs in seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nni
import torch
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d, MutableLinear
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.strategies.supernet import SupernetStrategy

CLASSES = 10


class ToySpace(ModelSpace):
    """A chain with one layer choice (``op``) and one width choice (``width``), for images of 3 channels.

    Example:
        >>> sorted(ToySpace().simplify())
        ['op', 'width']
    """

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.stem = MutableConv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.norm = MutableBatchNorm2d(width)
        self.op = LayerChoice(
            {
                "conv": MutableConv2d(width, width, 3, padding=1, bias=False),
                "linear": MutableConv2d(width, width, 1),
                "skip": nn.Identity(),
            },
            label="op",
        )
        self.head = MutableLinear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images, shape ``(N, 3, H, W)`` -> ``(N, 10)``."""
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.op(x)).mean(dim=(2, 3))
        return self.head(x)


class ToyCellSpace(ModelSpace):
    """Two cells that share two layer choices (``edge_0``, ``edge_1``), as cell spaces do.

    Args:
        channels: Channels of both cells. Default 4.

    Example:
        >>> sorted(ToyCellSpace().simplify())
        ['edge_0', 'edge_1']
    """

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.cells = nn.ModuleList([ToyCell(channels), ToyCell(channels)])
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images, shape ``(N, 3, H, W)`` -> ``(N, 10)``."""
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x)
        return self.head(x.mean(dim=(2, 3)))


class ToyCell(nn.Module):
    """Two edges in a row, each with three candidates."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (_edge(channels, index) for index in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(N, C, H, W)``."""
        return self.second(self.first(x))


def _edge(channels: int, index: int) -> LayerChoice:
    return LayerChoice(
        {
            "conv": nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)),
            "point": nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 1)),
            "skip": nn.Identity(),
        },
        label=f"edge_{index}",
    )


def toy_data(n: int = 64, seed: int = 0) -> TensorDataset:
    """Make images of ten classes that a small network can tell apart.

    Args:
        n: Number of images, shape ``(n, 3, 8, 8)``.
        seed: Seed of images and labels.

    Returns:
        Data set of images and labels.

    Example:
        >>> toy_data(4).tensors[0].shape
        torch.Size([4, 3, 8, 8])
    """
    patterns = torch.randn(CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    images = patterns[labels] + 0.5 * torch.randn(n, 3, 8, 8, generator=generator)
    return TensorDataset(images, labels)


def toy_evaluator(
    max_epochs: int = 2,
    *,
    root: str | Path = ".",
    learning_rate: float = 0.05,
    optimizer: Any = None,
    schedule: Callable[[int], float] | None = None,
    **trainer: Any,
) -> Lightning:
    """Make an NNI evaluator on the toy data: SGD with momentum, four batches an epoch.

    Args:
        max_epochs: Epochs to train.
        root: Folder for everything the trainer writes.
        learning_rate: Base learning rate.
        optimizer: Optimizer class; default SGD with momentum 0.9.
        schedule: Factor on the learning rate by step, or None for a constant rate.
        **trainer: Further arguments of the Lightning trainer.

    Returns:
        The evaluator, with its loader shuffled by a generator of its own.

    Example:
        >>> len(toy_evaluator().train_dataloaders)
        4
    """
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": str(root),
    }
    module = ToyModule(
        learning_rate=learning_rate,
        weight_decay=1e-4,
        optimizer=optimizer or partial(torch.optim.SGD, momentum=0.9),
        num_classes=CLASSES,
    )
    module.schedule = schedule
    return Lightning(
        module,
        Trainer(max_epochs=max_epochs, **{**settings, **trainer}),
        train_dataloaders=_loader(toy_data(64), shuffle=True),
        val_dataloaders=_loader(toy_data(32, seed=5), shuffle=False),
    )


def _loader(data: TensorDataset, shuffle: bool) -> Any:
    # A generator of its own: then training leaves the global random state alone.
    return DataLoader(data, batch_size=16, shuffle=shuffle, generator=torch.Generator().manual_seed(3))


class ToyModule(ClassificationModule):
    """NNI's classification module with an optional schedule of the learning rate by step."""

    schedule: Callable[[int], float] | None = None

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with the schedule where one was given."""
        optimizer = super().configure_optimizers()
        if self.schedule is None:
            return optimizer
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def toy_supernet(space: ModelSpace | None = None, seed: int = 0) -> Supernet:
    """Mutate a space into an untrained supernet.

    Args:
        space: Model space; default a new :class:`ToySpace` with weights from ``seed``.
        seed: Seed of the weights, where the space is made here. Global random state is left alone.

    Returns:
        The supernet.

    Example:
        >>> toy_supernet().domain.labels
        ('width', 'op')
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SupernetStrategy().mutate_model(space if space is not None else ToySpace())
    return Supernet(model)
