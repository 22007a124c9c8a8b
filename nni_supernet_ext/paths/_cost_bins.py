"""How the costs of a space's subnets are distributed, and how to draw a subnet of a given cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.errors import ConfigurationError

_PATIENCE = 100


class CostBins:
    """Estimate the distribution of costs from samples, and draw subnets from one bin of it.

    A bin's subnets are drawn choice by choice, each by the frequencies of its candidates among the bin's
    samples, and redrawn until the cost lies in the bin.

    Args:
        samples: Uniform samples of the space.
        measure: Function from a sample to its cost.
        n_bins: Number of equal steps between the smallest and the largest cost seen.

    Raises:
        ConfigurationError: All samples cost the same.

    Example:
        >>> bins = CostBins([{'width': 1}, {'width': 1}, {'width': 4}], lambda s: s['width'], 3)
        >>> bins.counts.tolist(), bins.bin_of(4)
        ([2, 0, 1], 2)

    Reference:
        Wang et al., "AttentiveNAS: Improving Neural Architecture Search via Attentive Sampling", CVPR 2021,
        section 4.2.
    """

    def __init__(self, samples: Sequence[Sample], measure: Callable[[Sample], float], n_bins: int) -> None:
        self._measure = measure
        costs = np.asarray([float(measure(sample)) for sample in samples])
        self.low, self.high, self.n_bins = float(costs.min()), float(costs.max()), n_bins
        if not self.low < self.high:
            raise ConfigurationError(
                "Argument `complexity` is expected to differ between subnets, but got "
                f"{self.low:g} for all of {len(samples)}. Use another complexity, or `n_bins=1`."
            )
        members: list[list[Sample]] = [[] for _ in range(n_bins)]
        for sample, cost in zip(samples, costs, strict=True):
            members[self.bin_of(cost)].append(sample)
        self._members = members
        self.counts = np.asarray([len(bin_members) for bin_members in members])

    def bin_of(self, cost: float) -> int:
        """Return the bin of a cost; costs beyond those seen belong to the outermost bins."""
        share = (cost - self.low) / (self.high - self.low)
        return min(max(int(share * self.n_bins), 0), self.n_bins - 1)

    def draw_bin(self, rng: np.random.Generator, uniform: bool = False) -> int:
        """Draw a bin, in proportion to its samples or (``uniform``) all that have some alike."""
        occupied = np.flatnonzero(self.counts)
        weights = np.ones(len(occupied)) if uniform else self.counts[occupied]
        return int(rng.choice(occupied, p=weights / weights.sum()))

    def draw(self, rng: np.random.Generator, target: int, domain: Domain) -> dict[str, Any]:
        """Draw a subnet whose cost lies in a bin.

        Args:
            rng: The only source of randomness.
            target: Number of a bin that has samples.
            domain: The space's choices.

        Returns:
            A sample. After 100 misses in a row it is one of the samples the bin was estimated from.
        """
        members = self._members[target]
        for _ in range(_PATIENCE):
            # The candidate of a random member is a draw by the candidates' frequencies in the bin.
            rows = rng.integers(len(members), size=len(domain.labels))
            sample = {label: members[int(row)][label] for label, row in zip(domain.labels, rows, strict=True)}
            if domain.satisfies_constraints(sample) and self.bin_of(self._measure(sample)) == target:
                return sample
        return dict(members[int(rng.integers(len(members)))])
