"""What can be wrong with few-shot training, said before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nni_supernet_ext._integers import is_integer
from nni_supernet_ext.callbacks.momentum_separation import MomentumSeparation
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.strategies.splits import SplitRule
from nni_supernet_ext.strategies.supernet import SupernetStrategy
from nni_supernet_ext.weights.splitting import WeightSplitting

TRANSFERS = ("weights", "weights_and_optimizer", "none")
BOUNDS = ("global", "part")


def argument_problems(strategy: Any) -> Iterable[str]:
    """Yield what is wrong with the arguments by themselves.

    Args:
        strategy: A ``FewShotStrategy``.
    """
    if not isinstance(strategy.base, SupernetStrategy):
        yield (
            f"Argument `base` is expected to be a SupernetStrategy, but got {type(strategy.base).__name__}. Wrap "
            "the settings of one sub-supernet's training in SupernetStrategy(...)."
        )
    rules_fit = isinstance(strategy.splits, list) and bool(strategy.splits)
    rules_fit = rules_fit and all(isinstance(rule, SplitRule) for rule in strategy.splits)
    if not rules_fit:
        yield (
            f"Argument `splits` is expected to hold at least one SplitRule, but got {strategy.splits!r}. Use for "
            "example [ChoiceSplit()]."
        )
    for name, options in (("transfer", TRANSFERS), ("complexity_bounds", BOUNDS)):
        value = getattr(strategy, name)
        if value not in options:
            yield (f"Argument `{name}` is expected to be one of {options}, but got {value!r}. Use {options[0]!r}.")
    if strategy.only is not None and not isinstance(strategy.only, tuple):
        yield (
            f"Argument `only` is expected to hold numbers of sub-supernets, but got {strategy.only!r}. Put it into "
            "a list: only=[...]."
        )
    if rules_fit:
        yield from _warmup_problems(strategy)
    if isinstance(getattr(strategy.base, "weights", None), WeightSplitting) and _any_warmup(strategy):
        yield (
            "Argument `warmup_epochs` is expected to be 0 with WeightSplitting, whose milestones belong to a "
            f"whole training, but got {strategy.warmup_epochs!r}. Use 0, or leave WeightSplitting out."
        )


def _any_warmup(strategy: Any) -> bool:
    given = strategy.warmup_epochs
    return any(given) if isinstance(given, Sequence) else bool(given)


def _warmup_problems(strategy: Any) -> Iterable[str]:
    given = strategy.warmup_epochs
    epochs = list(given) if isinstance(given, Sequence) else [given]
    wrong = not all(is_integer(n, 0) for n in epochs)
    if wrong or len(epochs) > len(strategy.splits):
        yield (
            f"Argument `warmup_epochs` is expected to be a number of epochs of at least 0, or one for each of the "
            f"{len(strategy.splits)} splits, but got {given!r}. Use 0 for none."
        )
        return
    first = next((level for level, rule in enumerate(strategy.splits) if rule.needs_warmup), None)
    if first is not None and not any(epochs[: first + 1]):
        yield (
            f"Argument `warmup_epochs` is expected to be positive at or before a split that looks at trained "
            f"weights, but got {given!r} with {type(strategy.splits[first]).__name__} at level {first}. Train the "
            "supernet for some epochs before it is split."
        )


def evaluator_problems(evaluator: Any) -> Iterable[str]:
    """Yield what is wrong with the evaluator: every sub-supernet goes on from a checkpoint of its own.

    Args:
        evaluator: The user's evaluator.
    """
    path = evaluator.fit_kwargs.get("ckpt_path")
    if path is not None:
        yield (
            f"Argument `ckpt_path` of the evaluator's `fit_kwargs` is expected to be None for few-shot training, "
            f"but got {path!r}. Leave it out, and give `checkpoint_dir` of the base strategy to go on from there."
        )


def only_problems(strategy: Any, parts: int) -> Iterable[str]:
    """Yield what is wrong with the numbers of sub-supernets to train.

    Args:
        strategy: A ``FewShotStrategy``.
        parts: How many sub-supernets there are.
    """
    if strategy.only is not None and any(number not in range(parts) for number in strategy.only):
        yield (
            f"Argument `only` is expected to hold numbers of sub-supernets below {parts}, but got "
            f"{strategy.only}. Remove the others."
        )


def split_problems(strategy: Any, domain: Domain, callbacks: Sequence[Any]) -> Iterable[str]:
    """Yield what is wrong with the splits in a space.

    Args:
        strategy: A ``FewShotStrategy``.
        domain: All choices of the space.
        callbacks: Callbacks of the evaluator's trainer.
    """
    for rule in strategy.splits:
        yield from rule.problems(domain)
    known = [label for rule in strategy.splits for label in rule.split_labels()]
    free = [label for label in domain.candidates if label not in known]
    for callback in [*strategy.base.callbacks, *callbacks]:
        if isinstance(callback, MomentumSeparation) and isinstance(callback.by, str) and callback.by in known:
            yield (
                f"Argument `by` of MomentumSeparation is expected to be another choice than the one split on, but "
                f"got {callback.by!r}, whose candidates are in different sub-supernets. Use one of {free}."
            )
    for label in strategy.base.paths.shared_choices:
        if label in known:
            yield (
                f"The choice that {type(strategy.base.paths).__name__} holds fixed within a step is expected to be "
                f"another one than the one split on, but got {label!r}. Use one of {free}."
            )
