"""Count the multiply-accumulate operations of a subnet by running it once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nni_supernet_ext.core.batches import batch_size
from nni_supernet_ext.core.draw import Sample, hashable
from nni_supernet_ext.core.pairs import samples_of_all_pairs
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.core.units import Unit, UnitSum
from nni_supernet_ext.functional._module_modes import preserved_modes

_MOST_PAIRS = 256
"""Beyond so many pairs of candidates of two choices, to try them all would take longer than a table saves."""


def flop_count(supernet: Supernet, inputs: Any) -> Callable[[Sample], float]:
    """Build the function that counts a subnet's FLOPs per example, as NAS papers count: multiply-adds.

    Convolutions, matrix products, recurrent layers and attention count; normalisation, activations and additions do
    not. Where the count is a sum over the choices (every two candidates of different choices are tried together), a
    table answers for every sample and the extremes are exact; elsewhere each new sample runs once.

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
    model, previous = supernet.model, supernet.active
    supernet.activate(sample)
    try:
        with preserved_modes(model), torch.no_grad(), _countable_kernels(model):
            model.eval()
            with FlopCounterMode(display=False) as counter:
                model(inputs)
    finally:
        if previous is not None:
            supernet.activate(previous)
    # The counter counts a multiply-add as two operations.
    return counter.get_total_flops() / 2 / batch_size(inputs)


@contextmanager
def _countable_kernels(model: nn.Module) -> Iterator[None]:
    """Have attention and recurrent layers made of products, which count; their fused kernels count nothing."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    backends: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn] if recurrent else []
    fast, enabled = torch.backends.mha.get_fastpath_enabled(), [backend.enabled for backend in backends]
    torch.backends.mha.set_fastpath_enabled(False)
    for backend in backends:
        backend.enabled = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for backend, before in zip(backends, enabled, strict=True):
            backend.enabled = before


def _table(supernet: Supernet, measure: Callable[[Sample], float]) -> UnitSum | None:
    """Return the count as a sum over choices if it is one, else None.

    It is one if no two candidates together cost more or less than each adds alone: every pair is tried.
    """
    domain = supernet.domain
    if len(domain.candidates) != len(domain.labels) or domain.has_constraints:
        return None
    sizes = sorted(map(len, domain.candidates.values()), reverse=True)
    if math.prod(sizes[:2]) > _MOST_PAIRS:
        return None
    base = {label: values[0] for label, values in domain.candidates.items()}
    constant = measure(base)

    def unit(label: str) -> Unit:
        return Unit((label,), lambda sample: measure({**base, label: sample[label]}) - constant)

    table = UnitSum([Unit((), lambda sample: constant), *(unit(label) for label in domain.labels)])
    pairs = samples_of_all_pairs(domain.candidates, np.random.default_rng(0))
    return table if all(table(sample) == measure(sample) for sample in pairs) else None
