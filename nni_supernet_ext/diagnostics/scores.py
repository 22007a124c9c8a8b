"""Score the subnets of a supernet one after the other, in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.supernet import Supernet


def score_subnets(
    supernet: Supernet,
    samples: Iterable[Sample],
    score: Callable[[nn.Module], float],
    activate: Callable[[Supernet, Sample], None] | None = None,
) -> list[float]:
    """Return a score of each subnet, for example a training-free one with an untrained supernet's weights.

    Args:
        supernet: The supernet. Its weights are shared, so subnets differ by structure alone.
        samples: Architectures.
        score: Function of the network, such as ``lambda network: snip(network, images, labels)``.
        activate: How to activate a sample, for a weight store of its own. Default: in place.

    Returns:
        Scores in the order of the samples. The active subnet is afterwards as before.

    Example:
        >>> from nni_supernet_ext.functional import grad_norm
        >>> from nni_supernet_ext.testing import toy_data, toy_supernet
        >>> images, labels = toy_data(8).tensors
        >>> samples = [{'op': 'skip', 'width': 4}, {'op': 'conv', 'width': 8}]
        >>> len(score_subnets(toy_supernet(), samples, lambda network: grad_norm(network, images, labels)))
        2
    """
    previous = supernet.active
    turn_on = activate or (lambda net, sample: net.activate(sample))
    scores = []
    try:
        for sample in samples:
            turn_on(supernet, sample)
            scores.append(float(score(supernet.model)))
    finally:
        if previous is not None:
            turn_on(supernet, previous)
    return scores
