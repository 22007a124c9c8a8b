"""Small spaces for tests of split weights."""

from __future__ import annotations

import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn


def edge(label, channels=4):
    """Three candidates, two of them with weights, one of these with statistics."""
    return LayerChoice(
        {
            "conv": nn.Sequential(
                nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
            ),
            "point": nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 1)),
            "skip": nn.Identity(),
        },
        label=label,
    )


class Chain(ModelSpace):
    """Three searched layers in a row, ``a``, ``b`` and ``c``."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.a, self.b, self.c = edge("a"), edge("b"), edge("c")
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.c(self.b(self.a(self.stem(x)))).mean(dim=(2, 3)))


class Nested(ModelSpace):
    """A layer ``outer`` one candidate of which holds a searched layer ``inner``, behind a layer ``first``."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.first = edge("first")
        inner = LayerChoice([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)], label="inner")
        deep = nn.Sequential(inner, nn.ReLU())
        self.outer = LayerChoice({"deep": deep, "flat": nn.Conv2d(4, 4, 1)}, label="outer")
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(torch.relu(self.outer(self.first(self.stem(x)))).mean(dim=(2, 3)))


BOTH = {"b": ["a"], "c": ["b", "a"]}
