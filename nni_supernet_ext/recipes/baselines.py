"""Plain single-path training, strict fairness and few-shot training."""

from __future__ import annotations

from typing import Any

from nni_supernet_ext._integers import require_integers
from nni_supernet_ext.paths import FairPathSampler
from nni_supernet_ext.recipes._schedule import scheduled
from nni_supernet_ext.strategies.few_shot import FewShotStrategy
from nni_supernet_ext.strategies.splits import ChoiceSplit
from nni_supernet_ext.strategies.supernet import SupernetStrategy

__all__ = ["fairnas", "few_shot", "spos"]


def spos(*, schedule: str | None = "linear", **settings: Any) -> SupernetStrategy:
    """Train a supernet as single path one-shot: one uniform path a step.

    Args:
        schedule: Learning rate over the training: ``'linear'`` (default, the paper's), ``'cosine'``, or None
            for a scheduler or callback of yours.
        **settings: Further arguments of ``SupernetStrategy``; ``callbacks`` are added to the recipe's.

    Returns:
        The strategy. The evaluator's part of the paper's setting for ImageNet: SGD, learning rate 0.5, momentum
        0.9, weight decay 4e-5, batches of 1,024 images.

    Example:
        >>> type(spos().paths).__name__
        'UniformPathSampler'

    Reference:
        Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020.
    """
    return SupernetStrategy(**scheduled(schedule, settings))


def fairnas(*, schedule: str | None = "cosine", **settings: Any) -> SupernetStrategy:
    """Train a supernet as FairNAS: every candidate of every choice once a step, one update.

    Args:
        schedule: Learning rate over the training: ``'cosine'`` (default, the paper's), ``'linear'``, or None for
            a scheduler or callback of yours.
        **settings: Further arguments of ``SupernetStrategy``; ``callbacks`` are added to the recipe's.

    Returns:
        The strategy. The evaluator's part of the paper's setting for ImageNet: SGD, learning rate 0.045,
        momentum 0.9, weight decay 4e-5, batches of 256 images, 150 epochs.

    Example:
        >>> type(fairnas().paths).__name__
        'FairPathSampler'

    Reference:
        Chu et al., "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search", ICCV
        2021, Algorithm 1.
    """
    return SupernetStrategy(**{"paths": FairPathSampler(), **scheduled(schedule, settings)})


def few_shot(
    choice: str | None = None,
    *,
    levels: int = 1,
    warmup_epochs: int = 0,
    schedule: str | None = "cosine",
    **settings: Any,
) -> FewShotStrategy:
    """Train a supernet as few-shot NAS: one sub-supernet per candidate of a choice, each as single path one-shot.

    Args:
        choice: Label of the choice to split on first. Default: a random one, by the seed.
        levels: How many choices to split on, one after the other; those after the first are random. Default 1;
            2 gives 25 sub-supernets where choices have five candidates.
        warmup_epochs: Epochs of the one-shot supernet whose weights the sub-supernets start from. Default 0.
        schedule: As in :func:`fairnas`.
        **settings: Further arguments of ``SupernetStrategy`` for each sub-supernet.

    Returns:
        The strategy.

    Raises:
        ConfigurationError: ``levels`` is no positive integer.

    Example:
        >>> len(few_shot('op', levels=2).splits)
        2

    Reference:
        Zhao et al., "Few-shot Neural Architecture Search", ICML 2021.
    """
    require_integers("Use 1 to split on one choice.", levels=levels)
    base = SupernetStrategy(**scheduled(schedule, settings))
    splits = [ChoiceSplit(choice), *(ChoiceSplit() for _ in range(levels - 1))]
    return FewShotStrategy(base, splits, warmup_epochs=warmup_epochs)
