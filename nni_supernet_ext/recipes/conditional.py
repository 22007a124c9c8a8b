"""Conditional supernet weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch.optim import SGD

from nni_supernet_ext.functional.param_groups import weights_only_decay
from nni_supernet_ext.recipes._schedule import scheduled
from nni_supernet_ext.recipes._spaces import settings_of
from nni_supernet_ext.strategies.supernet import SupernetStrategy
from nni_supernet_ext.weights import WeightSplitting

__all__ = ["conditional", "conditional_evaluator_settings"]


def conditional(
    dependencies: str | Mapping[str, Sequence[str]] = "sequential",
    milestones: Sequence[float] | Literal["auto"] = (0.6,),
    *,
    schedule: str | None = "cosine",
    **settings: Any,
) -> SupernetStrategy:
    """Train a supernet with conditional weights: uniform paths, weights split once the supernet is half trained.

    The evaluator's part is :func:`conditional_evaluator_settings`.

    Args:
        dependencies: As in :class:`~nni_supernet_ext.weights.WeightSplitting`. Default ``'sequential'``;
            ``'nasbench201'`` for that space, with two milestones for both of its levels.
        milestones: When to split, or ``'auto'``. Default at 60 % of the training.
        schedule: Learning rate over the training: ``'cosine'`` (default, the authors'), ``'linear'``, or None for a
            scheduler or callback of yours.
        **settings: Further arguments of ``SupernetStrategy``; ``callbacks`` are added to the recipe's.

    Returns:
        The strategy.

    Example:
        >>> strategy = conditional("nasbench201", milestones=[0.6, 0.8])
        >>> type(strategy.weights).__name__, type(strategy.paths).__name__
        ('WeightSplitting', 'UniformPathSampler')

    Reference:
        Laube and Zell, "Conditional super-network weights", 2021.

    Deviations:
        The optimizer's state is copied with the weights, where the authors' implementation shares one momentum.
        That 60 % does best is the paper's finding for its own settings, not checked against its tables. The cosine
        ends at 0, the authors' at 1e-5.
    """
    return SupernetStrategy(
        **{"weights": WeightSplitting(dependencies, milestones), **scheduled(schedule, settings)}
    )


def conditional_evaluator_settings(space: str = "nasbench201") -> dict[str, Any]:
    """Return the evaluator's part of :func:`conditional` on CIFAR-10, with batches of 256 examples.

    SGD with momentum 0.9, which does not decay biases and normalisations.

    Args:
        space: ``'nasbench201'`` (default) or ``'nasbench_macro'``.

    Returns:
        Keyword arguments of NNI's ``Classification``.

    Raises:
        ConfigurationError: Unknown space.

    Example:
        >>> conditional_evaluator_settings()['learning_rate'], conditional_evaluator_settings()['max_epochs']
        (0.025, 250)

    Reference:
        Laube and Zell, 2021; the numbers are those of the configurations that the authors published with their
        code, not checked against the paper's text.
    """
    settings = {
        "nasbench201": {"learning_rate": 0.025, "weight_decay": 3e-4, "max_epochs": 250},
        "nasbench_macro": {"learning_rate": 0.1, "weight_decay": 5e-4, "max_epochs": 50},
    }
    return {**settings_of(space, settings), "optimizer": weights_only_decay(SGD, momentum=0.9)}
