"""Dynamic supernet training: complexity-aware learning rate and momentum separation."""

from __future__ import annotations

from typing import Any

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.core.complexity import Complexity
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.paths import FairPathSampler
from nni_supernet_ext.recipes._schedule import with_callbacks
from nni_supernet_ext.strategies.few_shot import FewShotStrategy
from nni_supernet_ext.strategies.splits import ChoiceSplit
from nni_supernet_ext.strategies.supernet import SupernetStrategy

__all__ = ["dynas"]


def dynas(
    baseline: str = "spos",
    *,
    by: str | None = None,
    gamma_max: float = 4.0,
    complexity: str | Complexity = "weights",
    split: str | None = None,
    **settings: Any,
) -> SupernetStrategy | FewShotStrategy:
    """Train a supernet dynamically: complexity-aware learning rate and momentum separation on a baseline.

    Args:
        baseline: ``'spos'`` (default), ``'fairnas'`` or ``'few_shot'``.
        by: Label of the choice whose candidates get momenta of their own. Default: chosen as
            :class:`~nni_supernet_ext.callbacks.MomentumSeparation` does; ``'fairnas'`` needs it, and holds this
            choice fixed within a step.
        gamma_max: Exponent of the smallest subnet. Default 4, the paper's for NAS-Bench-201; 3 for MobileNet
            spaces.
        complexity: Measure of a subnet. Default ``'weights'``.
        split: Label of the choice that ``'few_shot'`` splits on. Default: a random one other than ``by``.
        **settings: Further arguments of ``SupernetStrategy``; ``callbacks`` are added to the recipe's.

    Returns:
        The strategy. The evaluator's part of the paper's setting for NAS-Bench-201: SGD with Nesterov momentum
        0.9, constant learning rate 0.025, weight decay 5e-4, batches of 64 images, 250 epochs.

    Raises:
        ConfigurationError: Unknown baseline, ``'fairnas'`` without ``by``, or ``split`` without ``'few_shot'``.

    Example:
        >>> strategy = dynas('fairnas', by='op')
        >>> [type(callback).__name__ for callback in strategy.callbacks], strategy.paths.fixed
        (['ComplexityAwareLR', 'MomentumSeparation'], 'op')

    Reference:
        Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search", CVPR 2025; fairnas:
        Algorithm 2 of the supplement.
    """
    if baseline not in ("spos", "fairnas", "few_shot"):
        raise ConfigurationError(
            f"Argument `baseline` is expected to be 'spos', 'fairnas' or 'few_shot', but got {baseline!r}. Build "
            "other combinations from SupernetStrategy(callbacks=[ComplexityAwareLR(), MomentumSeparation()])."
        )
    if baseline == "fairnas" and by is None:
        raise ConfigurationError(
            "Argument `by` is expected to be the label of a choice for 'fairnas', but got None. Name the choice "
            "that is held fixed within each step and has a momentum for each candidate."
        )
    if baseline != "few_shot" and split is not None:
        raise ConfigurationError(
            f"Argument `split` is expected to be None for {baseline!r}, which trains one supernet, but got "
            f"{split!r}. Leave it out, or use the baseline 'few_shot'."
        )
    own = [ComplexityAwareLR(complexity, gamma_max), MomentumSeparation(by)]
    arguments = {"gradient_clip_val": 5.0, **with_callbacks(own, settings)}
    if baseline == "fairnas":
        arguments.setdefault("paths", FairPathSampler(fixed=by))
    strategy = SupernetStrategy(**arguments)
    return FewShotStrategy(strategy, [ChoiceSplit(split)]) if baseline == "few_shot" else strategy
