"""How much the gradients of small and of large subnets vary from batch to batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nni_supernet_ext._integers import require_integers
from nni_supernet_ext.core.complexity import Complexity, resolve_complexity
from nni_supernet_ext.diagnostics.gradients import SubnetGradients
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional.gradient_diagnostics import gradient_deviation


def deviation_by_complexity(
    gradients: SubnetGradients,
    batches: Sequence[Any],
    complexity: str | Complexity = "parameters",
    n_subnets: int = 30,
    n_groups: int = 3,
    seed: int = 0,
) -> list[tuple[float, float]]:
    """Measure the standard deviation of gradients, apart for groups of subnets of similar complexity.

    Random subnets are sorted by complexity and cut into groups of equal size. Of each subnet the deviation over the
    batches is taken, and of each group the mean.

    Args:
        gradients: Of the supernet.
        batches: At least 2 batches, each what the loss takes.
        complexity: ``'parameters'`` (default), ``'weights'``, or a function from a sample to a number.
        n_subnets: Random subnets. Default 30.
        n_groups: Groups, from the smallest subnets up. Default 3.
        seed: Seed of the subnets. Default 0.

    Returns:
        For each group the mean complexity and the mean standard deviation.

    Raises:
        ConfigurationError: Fewer than 2 batches, fewer subnets than groups, a number that is no positive integer,
            or an unknown complexity; 'flops' by name, which needs an input.

    Example:
        >>> from nni_supernet_ext.testing import toy_data, toy_supernet
        >>> batches = [toy_data(8, seed=seed).tensors for seed in range(3)]
        >>> len(deviation_by_complexity(SubnetGradients(toy_supernet()), batches, n_subnets=6))
        3

    Reference:
        Jeon et al., CVPR 2025, appendix, figure B.

    Deviations:
        Groups and deviation are defined here; see :func:`~nni_supernet_ext.functional.gradient_deviation`.
    """
    require_integers("Use 30 and 3, the defaults.", n_subnets=n_subnets, n_groups=n_groups)
    if n_groups > n_subnets:
        raise ConfigurationError(
            f"Argument `n_groups` is expected to be at most {n_subnets}, the number of subnets, but got "
            f"{n_groups}. Use fewer groups or more subnets."
        )
    if complexity == "flops":
        raise ConfigurationError(
            "Argument `complexity` is expected to be 'parameters', 'weights' or a function of the sample, but got "
            "'flops', which needs an input. Use `flop_count(supernet, inputs)` of nni_supernet_ext.core."
        )
    domain = gradients.supernet.domain
    measure = resolve_complexity(complexity, gradients.supernet)
    rng = np.random.default_rng(seed)
    samples = sorted((domain.random(rng) for _ in range(n_subnets)), key=measure)
    deviations = [gradient_deviation([gradients.of(sample, batch) for batch in batches]) for sample in samples]
    costs = [float(measure(sample)) for sample in samples]
    groups = np.array_split(np.arange(n_subnets), n_groups)
    return [(float(np.take(costs, group).mean()), float(np.take(deviations, group).mean())) for group in groups]
