"""Importance sampling of paths and data."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.optim import SGD

from nni_supernet_ext._integers import require_integers
from nni_supernet_ext.data import ImportanceDataSampler
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.paths import ImportancePathSampler
from nni_supernet_ext.recipes._spaces import settings_of
from nni_supernet_ext.strategies.supernet import SupernetStrategy

__all__ = ["panda", "panda_evaluator_settings"]


def panda(variant: str = "paper", **settings: Any) -> SupernetStrategy:
    """Train a supernet as PA&DA: paths and data drawn in proportion to their gradient norms.

    Both shares rise linearly over the training. The evaluator's part, by search space, is
    :func:`panda_evaluator_settings`.

    Args:
        variant: ``'paper'`` (default): a distribution per choice, plain averages over an epoch, each draw's own
            gradient. ``'script'``: what the authors' NAS-Bench-201 script does instead: one distribution for all
            choices, running pairwise averages of the sum of the tensors' norms after clipping, and nothing kept
            for candidates and examples that an epoch left out.
        **settings: Further arguments of ``SupernetStrategy``; a gradient clipping of 5 is the default.

    Returns:
        The strategy.

    Raises:
        ConfigurationError: Unknown variant.

    Example:
        >>> strategy = panda(seed=1)
        >>> strategy.paths.delta, strategy.data.tau, strategy.gradient_clip_val
        ('linear', 'linear', 5.0)
        >>> panda('script').paths.granularity
        'operation'

    Reference:
        Lu et al., "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", CVPR 2023, sections 3.4 and 4.1.

    Deviations:
        ``'script'`` averages an example's repeats plainly, and both shares are one epoch ahead of the script's.
    """
    if variant == "paper":
        paths, data = ImportancePathSampler(), ImportanceDataSampler()
    elif variant == "script":
        paths = ImportancePathSampler(
            granularity="operation", accumulation="pairwise", gradient="clipped", norm="sum", unseen="zero"
        )
        data = ImportanceDataSampler(unseen="zero")
    else:
        raise ConfigurationError(
            f"Argument `variant` is expected to be 'paper' or 'script', but got {variant!r}. Use 'paper'."
        )
    return SupernetStrategy(**{"paths": paths, "data": data, "gradient_clip_val": 5.0, **settings})


def panda_evaluator_settings(space: str = "nasbench201", epochs: int | None = None) -> dict[str, Any]:
    """Return the evaluator's part of :func:`panda`.

    SGD with momentum 0.9. The learning rate is to fall over the training, by a scheduler of the evaluator or by
    :class:`~nni_supernet_ext.callbacks.cosine_lr.CosineLR`.

    Args:
        space: ``'nasbench201'`` (default): CIFAR-10 in batches of 256 examples, 250 epochs. ``'darts'``: CIFAR-10
            in batches of 64, 50 epochs. ``'mobilenet'``: ImageNet in batches of 1,024, 120 epochs.
        epochs: Default: those of the space.

    Returns:
        Keyword arguments of NNI's ``Classification``.

    Raises:
        ConfigurationError: Unknown space, or ``epochs`` is no positive integer.

    Example:
        >>> panda_evaluator_settings()['learning_rate'], panda_evaluator_settings('darts')['max_epochs']
        (0.05, 50)

    Reference:
        Lu et al., CVPR 2023: ``'nasbench201'`` as in the authors' script for it. Liu et al., "DARTS:
        Differentiable Architecture Search", ICLR 2019, section A.1: ``'darts'``. Guo et al., "Single Path One-Shot
        Neural Architecture Search with Uniform Sampling", ECCV 2020, section 4: ``'mobilenet'``.

    Deviations:
        The PA&DA authors published code for NAS-Bench-201 only. For the two other spaces these are the settings of
        the supernets that theirs build on, without importance sampling, not checked against PA&DA's own.
    """
    settings: dict[str, dict[str, Any]] = {
        "nasbench201": {"learning_rate": 0.05, "weight_decay": 2.5e-4, "max_epochs": 250},
        "darts": {"learning_rate": 0.025, "weight_decay": 3e-4, "max_epochs": 50},
        "mobilenet": {"learning_rate": 0.5, "weight_decay": 4e-5, "max_epochs": 120},
    }
    chosen = {**settings_of(space, settings), "optimizer": partial(SGD, momentum=0.9)}
    if epochs is None:
        return chosen
    require_integers("Use None for the space's own.", epochs=epochs)
    return {**chosen, "max_epochs": epochs}
