"""Sandwich rule and in-place distillation: AlphaNet, AttentiveNAS, BigNAS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.optim import SGD

from nni_supernet_ext._integers import require_integers
from nni_supernet_ext.callbacks import LargestSubnetRegularization
from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.core.complexity import Complexity
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.functional.param_groups import weights_only_decay
from nni_supernet_ext.objectives import InplaceDistillation
from nni_supernet_ext.paths import AttentivePathSampler, SandwichSampler
from nni_supernet_ext.recipes._schedule import with_callbacks
from nni_supernet_ext.strategies.supernet import SupernetStrategy

__all__ = ["alphanet", "attentivenas", "bignas", "sandwich_evaluator_settings"]


def alphanet(
    complexity: str | Complexity = "parameters",
    *,
    n_random: int = 2,
    warmup_iterations: int | None = 0,
    regularize_largest_only: bool = True,
    **settings: Any,
) -> SupernetStrategy:
    """Train a supernet as AlphaNet: sandwich rule, and distillation in place by the adaptive alpha-divergence.

    The evaluator's part of the recipe is :func:`sandwich_evaluator_settings`.

    Args:
        complexity: What makes a subnet the largest or the smallest; see
            :class:`~nni_supernet_ext.paths.SandwichSampler`. Default ``'parameters'``; where a choice changes
            no parameter (an input resolution), give a function, for example
            :func:`~nni_supernet_ext.spaces.attentive_mobilenet_flops`.
        n_random: Random subnets in each step. Default 2.
        warmup_iterations: Batches in which the learning rate rises; then it falls along a cosine. Default 0.
            None leaves the rate to a scheduler or callback of yours.
        regularize_largest_only: Whether dropout and stochastic depth act on the largest subnet only. Default
            True; False for spaces without them.
        **settings: Further arguments of ``SupernetStrategy``; ``callbacks`` are added to the recipe's.

    Returns:
        The strategy.

    Example:
        >>> strategy = alphanet(warmup_iterations=100, seed=1)
        >>> strategy.objective.divergence, strategy.gradient_clip_val, strategy.gradient_clip_algorithm
        ('adaptive_alpha', 1.0, 'value')

    Reference:
        Wang et al., "AlphaNet: Improved Training of Supernets with Alpha-Divergence", ICML 2021, section 4.
    """
    paths = SandwichSampler(complexity=complexity, n_random=n_random)
    return _sandwiched(paths, "adaptive_alpha", warmup_iterations, regularize_largest_only, settings)


def attentivenas(
    complexity: str | Complexity = "parameters",
    *,
    pick: str = "best",
    n_candidates: int = 3,
    predictor: Callable[[Sample], float] | None = None,
    n_random: int = 2,
    warmup_iterations: int | None = 0,
    regularize_largest_only: bool = True,
    **settings: Any,
) -> SupernetStrategy:
    """Train a supernet as AttentiveNAS: a sandwich whose random subnets are the best (or worst) of their cost.

    Args:
        complexity: Measure for both ends of the sandwich and for the costs of the random subnets. Default
            ``'parameters'``.
        pick: ``'best'`` (default) or ``'worst'``.
        n_candidates: Subnets to pick each random one from. Default 3; 50 is common with a predictor.
        predictor: Function from a sample to its predicted quality. Default: the loss on the current batch.
        n_random: Random subnets in each step. Default 2.
        warmup_iterations: As in :func:`alphanet`. Default 0.
        regularize_largest_only: As in :func:`alphanet`.
        **settings: Further arguments of ``SupernetStrategy``; ``callbacks`` are added to the recipe's.

    Returns:
        The strategy.

    Example:
        >>> attentivenas(pick='worst').paths.base.pick
        'worst'

    Reference:
        Wang et al., "AttentiveNAS: Improving Neural Architecture Search via Attentive Sampling", CVPR 2021,
        sections 4 and 5.
    """
    base = AttentivePathSampler(pick, n_candidates, complexity, predictor)
    paths = SandwichSampler(base, complexity, n_random)
    return _sandwiched(paths, "kl", warmup_iterations, regularize_largest_only, settings)


def bignas(
    complexity: str | Complexity = "parameters",
    *,
    n_random: int = 2,
    warmup_iterations: int | None = 0,
    regularize_largest_only: bool = True,
    **settings: Any,
) -> SupernetStrategy:
    """Train a supernet as BigNAS: sandwich rule, and in-place distillation by the KL divergence.

    Args:
        complexity: What makes a subnet the largest or the smallest. Default ``'parameters'``.
        n_random: Random subnets in each step. Default 2.
        warmup_iterations: As in :func:`alphanet`. Default 0.
        regularize_largest_only: As in :func:`alphanet`.
        **settings: Further arguments of ``SupernetStrategy``; ``callbacks`` are added to the recipe's.

    Returns:
        The strategy.

    Example:
        >>> bignas().objective.divergence
        'kl'

    Reference:
        Yu et al., "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models", ECCV 2020,
        section 3.

    Deviations:
        Learning rate, clipping and optimizer are those of the AlphaNet paper, whose baseline BigNAS is: a
        cosine to zero instead of BigNAS's exponential decay with a constant ending.
    """
    paths = SandwichSampler(complexity=complexity, n_random=n_random)
    return _sandwiched(paths, "kl", warmup_iterations, regularize_largest_only, settings)


def sandwich_evaluator_settings(batch_size: int, epochs: int = 360) -> dict[str, Any]:
    """Return the evaluator's part of :func:`alphanet`, :func:`attentivenas` and :func:`bignas`.

    SGD with Nesterov momentum, a learning rate of 0.1 for each 256 examples, weight decay that leaves batch
    normalisation and biases alone, and label smoothing.

    Args:
        batch_size: Examples in an optimizer step, over all devices.
        epochs: Default 360, the papers'.

    Returns:
        Keyword arguments of NNI's ``Classification``.

    Raises:
        ConfigurationError: An argument is no positive integer.

    Example:
        >>> settings = sandwich_evaluator_settings(batch_size=512)
        >>> settings['learning_rate'], settings['max_epochs'], settings['criterion']().label_smoothing
        (0.2, 360, 0.1)

    Reference:
        Wang et al., "AlphaNet", ICML 2021, section 4; Wang et al., "AttentiveNAS", CVPR 2021, section 5.

    Deviations:
        The label smoothing is the criterion's, so it is in the validation loss too.
    """
    require_integers("Use 1 or more.", batch_size=batch_size, epochs=epochs)
    return {
        "criterion": partial(nn.CrossEntropyLoss, label_smoothing=0.1),
        "learning_rate": 0.1 * batch_size / 256,
        "weight_decay": 1e-5,
        "optimizer": weights_only_decay(SGD, momentum=0.9, nesterov=True),
        "max_epochs": epochs,
    }


def _sandwiched(
    paths: SandwichSampler,
    divergence: str,
    warmup_iterations: int | None,
    regularize_largest_only: bool,
    settings: dict[str, Any],
) -> SupernetStrategy:
    """Join what the three recipes share: students without labels, clipping by value, cosine."""
    callbacks: list[Any] = []
    if warmup_iterations is not None:
        callbacks.append(CosineLR(warmup_iterations=warmup_iterations))
    if regularize_largest_only:
        callbacks.append(LargestSubnetRegularization())
    settings = with_callbacks(callbacks, settings)
    clipping = {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}
    objective = InplaceDistillation(divergence, beta=1.0)
    return SupernetStrategy(paths=paths, objective=objective, **{**clipping, **settings})
