"""How much the gradients of two subnets agree, by the number of choices in which they differ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nni_supernet_ext._integers import require_integers
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.diagnostics.gradients import SubnetGradients
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional.gradient_diagnostics import gradient_cosine

_PATIENCE = 1000


def similarity_by_distance(
    gradients: SubnetGradients,
    batch: Any,
    distances: Iterable[int] | None = None,
    n_pairs: int = 20,
    seed: int = 0,
) -> dict[int, float]:
    """Measure the mean cosine similarity of two subnets' gradients at each structural distance.

    Both gradients are taken on the same batch, and compared over the weights that both subnets contain. The
    distance is the number of choices with different candidates.

    Args:
        gradients: Of the supernet.
        batch: What its loss takes.
        distances: Distances to measure. Default: from 1 to the number of choices with more than one candidate.
        n_pairs: Random pairs for each distance. Default 20.
        seed: Seed of the pairs. Default 0.

    Returns:
        Distance -> mean cosine. Pairs without one (no shared weight with a gradient, or a gradient that is not
        finite) do not count; NaN where none is left.

    Raises:
        ConfigurationError: A distance or ``n_pairs`` is out of range.

    Example:
        >>> from nni_supernet_ext.testing import ToyCellSpace, toy_data, toy_supernet
        >>> gradients = SubnetGradients(toy_supernet(ToyCellSpace()))
        >>> sorted(similarity_by_distance(gradients, toy_data(16).tensors, n_pairs=2))
        [1, 2]

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025, Table I.

    Deviations:
        Which weights are compared, and the distance, are our reading of the paper.
    """
    domain = gradients.supernet.domain
    most = len(_open_labels(domain))
    wanted = list(range(1, most + 1) if distances is None else distances)
    require_integers("Use 20, the default.", n_pairs=n_pairs)
    for distance in wanted:  # all of them before the first gradient
        _require_distance(distance, most)
    rng = np.random.default_rng(seed)
    means = {}
    for distance in wanted:
        cosines = []
        for _ in range(n_pairs):
            pair = pair_at_distance(domain, distance, rng)
            first, second = (gradients.of(sample, batch) for sample in pair)
            cosines.append(gradient_cosine(first, second))
        defined = [cosine for cosine in cosines if cosine == cosine]
        means[distance] = float(np.mean(defined)) if defined else float("nan")
    return means


def pair_at_distance(domain: Domain, distance: int, rng: np.random.Generator) -> tuple[Sample, Sample]:
    """Draw two random subnets that differ in a given number of choices.

    Args:
        domain: The space's choices.
        distance: How many choices differ, from 0 to all.
        rng: The only source of randomness.

    Returns:
        A uniformly drawn subnet, and one with other candidates in random choices.

    Raises:
        ConfigurationError: No such pair exists, or constraints allow none that 1000 tries find.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> first, second = pair_at_distance(toy_supernet().domain, 2, np.random.default_rng(0))
        >>> first['op'] != second['op'], first['width'] != second['width']
        (True, True)
    """
    open_labels = _open_labels(domain)
    _require_distance(distance, len(open_labels))
    for _ in range(_PATIENCE):
        first = domain.random(rng)
        second = dict(first)
        for place in rng.choice(len(open_labels), size=distance, replace=False):
            label = open_labels[place]
            others = [value for value in domain.mutables[label].grid() if value != first[label]]
            second[label] = others[int(rng.integers(len(others)))]
        if domain.satisfies_constraints(second):
            return first, second
    raise ConfigurationError(
        f"Argument `distance` is expected to be allowed by the space's constraints, but got {distance}, for which "
        f"{_PATIENCE} tries found no pair. Measure other distances."
    )


def _open_labels(domain: Domain) -> list[str]:
    """Return the labels of the choices with more than one candidate."""
    return [label for label, mutable in domain.mutables.items() if len(list(mutable.grid())) > 1]


def _require_distance(distance: int, most: int) -> None:
    remedy = f"Use one of 0 to {most}, the number of choices with more than one candidate."
    require_integers(remedy, least=0, distance=distance)
    if distance > most:
        raise ConfigurationError(
            f"Argument `distance` is expected to be at most {most}, but got {distance}. {remedy}"
        )
