"""A draw: one subnet of one training step, with its role and its weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Sample = Mapping[str, Any]
"""An architecture: the label of every choice mapped to the chosen candidate."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Name one subnet to train in a step.

    A training step of a supernet runs over a list of draws. One draw is single-path training; several draws
    are strict fairness, the sandwich rule and their relatives.

    Args:
        sample: Architecture: label of every choice -> chosen candidate, as NNI's samples.
        role: What the subnet is in this step, for example ``'subnet'``, ``'largest'``, ``'smallest'``.
        weight: Factor on the draw's loss, hence on its gradient. Default 1.

    Example:
        >>> draw = Draw({'layer1': 'conv', 'layer2': 'pool'})
        >>> draw.role, draw.weight
        ('subnet', 1.0)
    """

    sample: Sample
    role: str = "subnet"
    weight: float = 1.0


def hashable(value: Any) -> Any:
    """Return a chosen value as a key: lists (choices of several inputs) become tuples.

    Example:
        >>> hashable([0, 2]), hashable('conv')
        ((0, 2), 'conv')
    """
    return tuple(value) if isinstance(value, list) else value


def describe_sample(sample: Sample, limit: int = 400) -> str:
    """Write a sample on one line, for messages and logs.

    Args:
        sample: Architecture to describe.
        limit: Most characters to return; longer text is cut and marked with ``...``.

    Returns:
        ``label=candidate`` pairs separated by commas.

    Example:
        >>> describe_sample({'layer1': 'conv', 'depth': 2})
        'layer1=conv, depth=2'
    """
    text = ", ".join(f"{label}={value}" for label, value in sample.items())
    return text if len(text) <= limit else text[: limit - 3] + "..."
