"""The part of NAS-Bench-201 that every architecture shares: all layers but the cells' operations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from nni_supernet_ext._integers import require_integers
from nni_supernet_ext.spaces.nasbench201_ops import BatchNormKind, Cell, ResidualReduction


class Skeleton(nn.Module):
    """Stem, stages of cells with a residual reduction between two of them, and the classifier."""

    stem: nn.Sequential
    cells: nn.Sequential
    head: nn.Sequential

    def assemble(
        self,
        make_cell: Callable[[int, BatchNormKind], Cell],
        channels: int,
        cells_per_stage: int,
        n_classes: int,
        in_channels: int,
        kind: BatchNormKind,
        stages: int = 3,
    ) -> None:
        """Build the layers; `make_cell` makes a cell of a given width.

        Raises:
            ConfigurationError: A size is not a positive integer.
        """
        require_integers(
            "Pass 1 or more.",
            channels=channels,
            cells_per_stage=cells_per_stage,
            n_classes=n_classes,
            in_channels=in_channels,
            stages=stages,
        )
        self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), kind(channels))
        layers: list[nn.Module] = []
        for width in (channels * 2**stage for stage in range(stages)):
            if layers:
                layers.append(ResidualReduction(width // 2, kind))
            layers += [make_cell(width, kind) for _ in range(cells_per_stage)]
        self.cells = nn.Sequential(*layers)
        self.head = nn.Sequential(
            kind(width),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, n_classes),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(self.stem(inputs)))
