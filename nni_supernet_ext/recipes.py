"""Published settings as functions: each returns a strategy, or the evaluator's part of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from torch import nn
from torch.optim import SGD

from nni_supernet_ext.callbacks import ComplexityAwareLR, LargestSubnetRegularization, MomentumSeparation
from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.core.complexity import Complexity
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.data import ImportanceDataSampler
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional.param_groups import weights_only_decay
from nni_supernet_ext.objectives import InplaceDistillation
from nni_supernet_ext.paths import AttentivePathSampler, FairPathSampler, ImportancePathSampler, SandwichSampler
from nni_supernet_ext.strategies.few_shot import FewShotStrategy
from nni_supernet_ext.strategies.splits import ChoiceSplit
from nni_supernet_ext.strategies.supernet import SupernetStrategy
from nni_supernet_ext.weights import WeightSplitting

__all__ = [
    "alphanet",
    "attentivenas",
    "bignas",
    "conditional",
    "conditional_evaluator_settings",
    "dynas",
    "fairnas",
    "few_shot",
    "panda",
    "panda_evaluator_settings",
    "sandwich_evaluator_settings",
    "spos",
]


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
    return SupernetStrategy(**_scheduled(schedule, settings))


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
    return SupernetStrategy(**{"paths": FairPathSampler(), **_scheduled(schedule, settings)})


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

    Example:
        >>> len(few_shot('op', levels=2).splits)
        2

    Reference:
        Zhao et al., "Few-shot Neural Architecture Search", ICML 2021.
    """
    base = SupernetStrategy(**_scheduled(schedule, settings))
    splits = [ChoiceSplit(choice), *(ChoiceSplit() for _ in range(levels - 1))]
    return FewShotStrategy(base, splits, warmup_epochs=warmup_epochs)


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
        ConfigurationError: Unknown baseline, or ``'fairnas'`` without ``by``.

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
    own = [ComplexityAwareLR(complexity, gamma_max), MomentumSeparation(by)]
    arguments = {"gradient_clip_val": 5.0, **settings, "callbacks": [*own, *settings.get("callbacks", [])]}
    if baseline == "fairnas":
        arguments.setdefault("paths", FairPathSampler(fixed=by))
    strategy = SupernetStrategy(**arguments)
    return FewShotStrategy(strategy, [ChoiceSplit(split)]) if baseline == "few_shot" else strategy


def alphanet(
    complexity: str | Complexity = "parameters",
    *,
    n_random: int = 2,
    warmup_iterations: int | None = 0,
    regularize_largest_only: bool = True,
    **settings: Any,
) -> SupernetStrategy:
    """Train a supernet as AlphaNet: sandwich rule, and in-place distillation by the adaptive
    alpha-divergence.

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
    """Train a supernet as AttentiveNAS: a sandwich whose random subnets are the best (or worst) of their
    cost.

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

    Example:
        >>> settings = sandwich_evaluator_settings(batch_size=512)
        >>> settings['learning_rate'], settings['max_epochs'], settings['criterion']().label_smoothing
        (0.2, 360, 0.1)

    Reference:
        Wang et al., "AlphaNet", ICML 2021, section 4; Wang et al., "AttentiveNAS", CVPR 2021, section 5.

    Deviations:
        The label smoothing is the criterion's, so it is in the validation loss too.
    """
    return {
        "criterion": partial(nn.CrossEntropyLoss, label_smoothing=0.1),
        "learning_rate": 0.1 * batch_size / 256,
        "weight_decay": 1e-5,
        "optimizer": weights_only_decay(SGD, momentum=0.9, nesterov=True),
        "max_epochs": epochs,
    }


def panda(variant: str = "paper", **settings: Any) -> SupernetStrategy:
    """Train a supernet as PA&DA: paths and data drawn in proportion to their gradient norms.

    Both shares rise linearly over the training. The evaluator's part for NAS-Bench-201 is
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


def panda_evaluator_settings(epochs: int = 250) -> dict[str, Any]:
    """Return the evaluator's part of :func:`panda` for NAS-Bench-201 on CIFAR-10, with batches of 256 examples.

    SGD with momentum; the learning rate, 0.05, is to fall along a cosine over the epochs, by a scheduler of the
    evaluator or by :class:`~nni_supernet_ext.callbacks.cosine_lr.CosineLR`.

    Args:
        epochs: Default 250, the authors'.

    Returns:
        Keyword arguments of NNI's ``Classification``.

    Example:
        >>> panda_evaluator_settings()['learning_rate']
        0.05

    Reference:
        Lu et al., CVPR 2023; the numbers are those of the authors' NAS-Bench-201 script.
    """
    return {
        "learning_rate": 0.05,
        "weight_decay": 2.5e-4,
        "optimizer": partial(SGD, momentum=0.9),
        "max_epochs": epochs,
    }


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
        **{"weights": WeightSplitting(dependencies, milestones), **_scheduled(schedule, settings)}
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
    if space not in settings:
        raise ConfigurationError(
            f"Argument `space` is expected to be one of {list(settings)}, but got {space!r}. Use one of them, or "
            "settings of your own."
        )
    return {**settings[space], "optimizer": weights_only_decay(SGD, momentum=0.9)}


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
    callbacks += settings.pop("callbacks", [])
    clipping = {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}
    objective = InplaceDistillation(divergence, beta=1.0)
    return SupernetStrategy(paths=paths, objective=objective, callbacks=callbacks, **{**clipping, **settings})


def _scheduled(schedule: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Put the callback of a schedule in front of the user's."""
    if schedule not in ("linear", "cosine", None):
        raise ConfigurationError(
            f"Argument `schedule` is expected to be 'linear', 'cosine' or None, but got {schedule!r}. Use None "
            "with a scheduler or callback of your own."
        )
    own: list[Any] = []
    if schedule == "linear":
        own.append(ComplexityAwareLR(gamma_max=1.0))  # every exponent is 1: linear for all subnets
    elif schedule == "cosine":
        own.append(CosineLR())
    return {**settings, "callbacks": [*own, *settings.get("callbacks", [])]}
