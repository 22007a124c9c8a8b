"""Count the multiply-accumulate operations of a subnet by running it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from nni_supernet_ext.core.draw import Sample, hashable
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.core.units import Unit, UnitSum

_CHECKS = 8


def flop_count(supernet: Supernet, inputs: Any) -> Callable[[Sample], float]:
    """Build the function that counts a subnet's FLOPs per example, as NAS papers count: multiply-adds.

    Convolutions, matrix products and attention count; normalisation, activations and additions do not.
    Where the count is a sum over the choices (checked on random subnets), a table answers for every sample
    and the extremes are exact; elsewhere each new sample runs once.

    Args:
        supernet: The supernet; its active subnet and mode are restored.
        inputs: Example input with a batch dimension first, for example ``torch.zeros(2, 3, 32, 32)``. Two
            examples let batch normalisation without running statistics work at 1x1 resolution.

    Returns:
        Function from a sample to multiply-adds per example.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> flops = flop_count(toy_supernet(), torch.zeros(2, 3, 8, 8))
        >>> flops({'op': 'skip', 'width': 4}) < flops({'op': 'conv', 'width': 8})
        True
    """
    known: dict[Any, float] = {}

    def measure(sample: Sample) -> float:
        key = tuple(hashable(sample[label]) for label in supernet.domain.labels)
        if key not in known:
            known[key] = _run(supernet, sample, inputs)
        return known[key]

    # Each new sample runs the network, so whoever looks for extremes should not try thousands.
    measure.expensive = True  # type: ignore[attr-defined]
    return _table(supernet, measure) or measure


def _run(supernet: Supernet, sample: Sample, inputs: Any) -> float:
    model, previous, was_training = supernet.model, supernet.active, supernet.model.training
    supernet.activate(sample)
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(inputs)
    finally:
        model.train(was_training)
        if previous is not None:
            supernet.activate(previous)
    # The counter counts a multiply-add as two operations.
    return counter.get_total_flops() / 2 / len(inputs)


def _table(supernet: Supernet, measure: Callable[[Sample], float]) -> UnitSum | None:
    """Return the count as a sum over choices if it is one, else None."""
    domain = supernet.domain
    if len(domain.candidates) != len(domain.labels):
        return None
    base = {label: values[0] for label, values in domain.candidates.items()}
    constant = measure(base)

    def unit(label: str) -> Unit:
        return Unit((label,), lambda sample: measure({**base, label: sample[label]}) - constant)

    table = UnitSum([Unit((), lambda sample: constant), *(unit(label) for label in domain.labels)])
    rng = np.random.default_rng(0)
    samples = [domain.random(rng) for _ in range(_CHECKS)]
    return table if all(table(sample) == measure(sample) for sample in samples) else None
