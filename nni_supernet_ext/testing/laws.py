"""The laws: what must hold for every method. Each raises AssertionError with what broke."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.processes import train_in_processes
from nni_supernet_ext.testing.toys import ToySpace
from nni_supernet_ext.testing.training import RandomState, Run, differing, train

_SLOTS = ("paths", "data", "weights", "objective")


def check_neutral(case: MethodCase, root: Path) -> None:
    """Check that a method at its neutral setting leaves the weights equal to plain training, bit for bit.

    Args:
        case: The method. Without ``neutral`` nothing is trained: the law asks only for a reason in
            ``no_neutral``, and what the method does to plain training needs a test of its own.
        root: Empty folder for everything that is written.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: The weights differ, named, or there is neither a neutral setting nor a reason.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_neutral(CASES[0], Path(tempfile.mkdtemp()))
    """
    if case.neutral is None:
        _require(bool(case.no_neutral), f"{case.name} has no neutral setting and gives no reason")
        return
    neutral = train(case, case.neutral(), root / "neutral")
    reference = train(case, case.reference(), root / "reference", evaluator_arguments=case.reference_evaluator)
    _require_equal(neutral, reference, f"{case.name} at its neutral setting changes the training")


def check_seed(case: MethodCase, root: Path) -> None:
    """Check that a seed fixes draws and weights, another changes the draws, and global state is untouched.

    Args:
        case: The method. With a reason in ``no_randomness``, another seed need not change the draws; the rest
            of the law holds all the same.
        root: Empty folder for everything that is written.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: Draws or weights of one seed differ, another seed changes nothing, or the global random
            state of Python, NumPy or torch has changed.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_seed(CASES[0], Path(tempfile.mkdtemp()))
    """
    before = RandomState()
    first = train(case, case.settings(), root / "first")
    _require(RandomState() == before, f"{case.name} changes the global random state")
    torch.manual_seed(12345)
    second = train(case, case.settings(), root / "second")
    _require(first.draws == second.draws, f"{case.name} draws other subnets with the same seed")
    _require_equal(first, second, f"{case.name} trains other weights with the same seed")
    if case.no_randomness:
        return
    other = train(case, case.settings(), root / "other", seed=1)
    _require(first.draws != other.draws, f"{case.name} ignores the seed")


def check_resume(cases: Sequence[MethodCase], root: Path, epochs: int = 2) -> None:
    """Check that k steps, a checkpoint and k steps in a fresh process equal 2k steps, bit for bit.

    The fresh process must be able to import the modules that define the settings (installed, or in the working
    directory); what a script or a notebook defines itself is sent along. It trains with one thread: call
    ``torch.set_num_threads(1)`` before the law, since other numbers of threads may round otherwise.

    Args:
        cases: The methods, with names of their own; one process resumes all of them, so that it starts once.
        root: Empty folder for everything that is written.
        epochs: Length of the whole training, at least 2. The first half runs before the checkpoint.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: Draws or weights after resuming differ from those of the unbroken training, or the
            process failed; its output is in the message.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_resume(CASES[:2], Path(tempfile.mkdtemp()))  # doctest: +SKIP
    """
    half = [_straight(case, root / case.name, epochs, stop_after=epochs // 2) for case in cases]
    resumed = train_in_processes(
        cases, root / "jobs", epochs=epochs, checkpoints=[root / case.name for case in cases]
    )[0]
    for case, first, rest in zip(cases, half, resumed, strict=True):
        whole = train(case, case.settings(), root / case.name / "whole", epochs=epochs)
        draws = [*first.draws, *rest["draws"]]
        _require(draws == whole.draws, f"{case.name} draws other subnets after resuming")
        _require(
            not differing(rest["weights"], whole.weights),
            f"{case.name} trains other weights after resuming: {differing(rest['weights'], whole.weights)}",
        )


def _straight(case: MethodCase, root: Path, epochs: int, stop_after: int) -> Run:
    from nni_supernet_ext.testing.stop import StopAfter

    settings = case.settings()
    settings["callbacks"] = [*settings.get("callbacks", []), StopAfter(stop_after)]
    return train(case, {**settings, "checkpoint_dir": root / "checkpoint"}, root, epochs=epochs)


def check_commute(cases: Sequence[MethodCase], root: Path) -> None:
    """Check that callbacks with different claims give the same weights in any order.

    Only the callbacks of the cases are trained, with every slot at its default. Pairs that claim the same
    decision, and cases without callbacks, are passed over.

    Args:
        cases: The methods; every pair is trained in both orders, in the space of the first of the two that is
            not :class:`ToySpace`.
        root: Empty folder for everything that is written.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: The weights of a pair depend on the order.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> cases = [case for case in CASES if case.name in ('CosineLR', 'TrainingHistory')]
        >>> check_commute(cases, Path(tempfile.mkdtemp()))
    """
    for first, second in combinations(cases, 2):
        settings = [first.settings().get("callbacks", []), second.settings().get("callbacks", [])]
        if not all(settings) or _claims(settings[0]) & _claims(settings[1]):
            continue
        runs = []
        for order in permutations((first, second)):
            callbacks = [callback for case in order for callback in case.settings()["callbacks"]]
            name = "-".join(case.name for case in order)
            runs.append(train(_host((first, second)), {"callbacks": callbacks}, root / name))
        _require_equal(runs[0], runs[1], f"{first.name} and {second.name} depend on their order")


def check_compose(cases: Sequence[MethodCase], root: Path) -> dict[tuple[str, ...], str]:
    """Check that every pair, and all together, trains or is refused with a remedy.

    Combinations that fill one slot twice, or disagree on another argument, cannot be written down and are
    missing from the result.

    Args:
        cases: The methods; a combination is trained in the space of the first that is not :class:`ToySpace`.
        root: Empty folder for everything that is written.

    Returns:
        Names of the combination -> ``'works'`` or the refusal.

    Raises:
        AssertionError: A combination is refused by a message that does not name the remedy in a sentence of
            its own. Any other error than a refusal is raised as it is.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> cases = [case for case in CASES if case.name in ('ComplexityAwareLR', 'MomentumSeparation')]
        >>> check_compose(cases, Path(tempfile.mkdtemp()))
        {('ComplexityAwareLR', 'MomentumSeparation'): 'works'}
    """
    outcomes: dict[tuple[str, ...], str] = {}
    together = [tuple(cases)] if len(cases) != 2 else []  # two are a pair already
    for group in [*combinations(cases, 2), *together]:
        merged = merge_settings(case.settings() for case in group)
        if merged is None:
            continue
        names = tuple(case.name for case in group)
        try:
            train(_host(group), merged, root / "-".join(names)[:120], epochs=1)
            outcomes[names] = "works"
        except ConfigurationError as error:
            _require(
                all(problem.count(". ") >= 1 for problem in error.problems),
                f"{names} is refused without a remedy: {error}",
            )
            outcomes[names] = str(error)
    return outcomes


def merge_settings(settings: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Join settings into one; None where two fill the same slot, which the signature makes impossible."""
    merged: dict[str, Any] = {"callbacks": []}
    for part in settings:
        for key, value in part.items():
            if key == "callbacks":
                merged["callbacks"] = [*merged["callbacks"], *value]
            elif key in merged and (key in _SLOTS or merged[key] != value):
                return None
            else:
                merged[key] = value
    return merged


def check_freeze(case: MethodCase, root: Path, n_samples: int = 4) -> None:
    """Check that an activated subnet computes what the extracted network computes, in evaluation mode.

    Args:
        case: The method. Its evaluator's validation loader gives pairs whose first part is the model's input,
            and its space keeps the weights when it is frozen.
        root: Empty folder for everything that is written.
        n_samples: How many random subnets to compare.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: A subnet computes something else; its sample is in the message.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_freeze(CASES[0], Path(tempfile.mkdtemp()))
    """
    run = train(case, case.settings(), root, epochs=1)
    supernet = run.strategy.trained
    rng = np.random.default_rng(0)
    batch = next(iter(run.evaluator.val_dataloaders))[0]
    for _ in range(n_samples):
        sample = supernet.domain.random(rng)
        run.strategy.weights.activate(supernet, sample)
        supernet.model.eval()
        network = supernet.extract(sample).eval()
        with torch.no_grad():
            same = torch.equal(supernet.model(batch), network(batch))
        _require(same, f"{case.name}: the frozen subnet {sample} computes something else")


def check_clean(case: MethodCase, root: Path) -> None:
    """Check that after the fit no hook is left and schedule, data and evaluator are as they were.

    Args:
        case: The method. Its evaluator holds loaders rather than a data module, and its Lightning module has
            ``hparams.learning_rate``, the rate of the optimizer's only parameter group, as NNI's modules have.
        root: Empty folder for everything that is written.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: What is left behind: hooks, callbacks, arguments, loaders or a learning rate.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_clean(CASES[0], Path(tempfile.mkdtemp()))
    """
    evaluator = case.evaluator(max_epochs=1, root=root)
    loaders = (evaluator.train_dataloaders, evaluator.val_dataloaders)
    callbacks, fit_kwargs = list(evaluator.trainer.callbacks), dict(evaluator.fit_kwargs)
    kept = MethodCase(case.name, case.settings, space=case.space, evaluator=lambda **_: evaluator)
    run = train(kept, case.settings(), root, epochs=1)
    module = run.evaluator.module
    hooked = [
        name
        for name, part in module.named_modules()
        if part._forward_hooks or part._forward_pre_hooks or part._backward_hooks
    ]
    hooked += [name for name, p in module.named_parameters() if p._backward_hooks]
    _require(not hooked, f"{case.name} leaves hooks on {hooked}")
    _require("log" not in vars(module), f"{case.name} leaves the evaluator's `log` redirected")
    _require(evaluator.trainer.callbacks == callbacks, f"{case.name} leaves callbacks on the trainer")
    _require(evaluator.fit_kwargs == fit_kwargs, f"{case.name} leaves the evaluator's fit_kwargs changed")
    _require(
        (evaluator.train_dataloaders, evaluator.val_dataloaders) == loaders,
        f"{case.name} leaves other data in the evaluator",
    )
    rates = [group["lr"] for group in evaluator.trainer.optimizers[0].param_groups]
    _require(rates == [module.hparams.learning_rate], f"{case.name} leaves the learning rate at {rates}")


def check_ranks(cases: Sequence[MethodCase], root: Path, epochs: int = 1) -> None:
    """Check that two processes training together draw the same subnets and end with equal weights.

    They train on the CPU by DistributedDataParallel. What :func:`check_resume` says of settings and modules
    holds here too. Running statistics of batch normalisation may differ, as they do without any method.

    Args:
        cases: The methods; the two processes train all of them, so that they start once.
        root: Empty folder for everything that is written.
        epochs: Length of the training.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: Draws or weights differ between the processes, or one failed; its output is in the
            message.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_ranks(CASES[:2], Path(tempfile.mkdtemp()))  # doctest: +SKIP
    """
    first, second = train_in_processes(cases, root, epochs=epochs, world_size=2)
    for case, mine, theirs in zip(cases, first, second, strict=True):
        _require(mine["draws"] == theirs["draws"], f"{case.name} draws other subnets on another rank")
        weights = {name for name in differing(mine["weights"], theirs["weights"])}
        # Running statistics are each rank's own, as under plain DistributedDataParallel.
        weights = {name for name in weights if "running_" not in name}
        _require(not weights, f"{case.name} ends with other weights on another rank: {sorted(weights)}")


def _host(cases: Sequence[MethodCase]) -> MethodCase:
    """Return the case whose space and evaluator a group trains in: one with needs of its own, if any."""
    return next((case for case in cases if case.space is not ToySpace), cases[0])


def _claims(callbacks: Iterable[Any]) -> set[str]:
    return {claim for callback in callbacks for claim in getattr(callback, "claims", ())}


def _require_equal(first: Run, second: Run, message: str) -> None:
    names = differing(first.weights, second.weights)
    _require(not names, f"{message}: {names}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
