"""Train one part of a space after another on one supernet, each as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nni.nas.evaluator.pytorch import Lightning
from nni.nas.space import RawFormatModelSpace

from nni_supernet_ext.callbacks.complexity_lr import ComplexityAwareLR
from nni_supernet_ext.callbacks.momentum_separation import MomentumSeparation, default_label
from nni_supernet_ext.core.checkpoint import part_names
from nni_supernet_ext.core.complexity import find_extremes, resolve_complexity
from nni_supernet_ext.core.configured import optimizer_and_schedulers
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.optimizer_settings import optimizer_settings
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.random_state import capture_random_state, restore_random_state
from nni_supernet_ext.core.step_settings import step_settings
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.errors import ConstraintError
from nni_supernet_ext.strategies.splits import Division
from nni_supernet_ext.strategies.stage_files import StageFiles
from nni_supernet_ext.strategies.stage_state import KeepState, Start, TakeState
from nni_supernet_ext.strategies.stages import RegionStrategy, fresh_evaluator
from nni_supernet_ext.strategies.sub_supernets import Region, check_network, copied_weights, load_weights
from nni_supernet_ext.strategies.supernet import SupernetStrategy
from nni_supernet_ext.strategies.trainer_callbacks import user_callbacks

_ALL = 100_000
"""Up to so many samples are tried one by one."""


class PartTraining:
    """Run trainings of regions of one supernet with the settings of a base strategy.

    Args:
        supernet: The mutated space with all its choices.
        base: Settings of each training.
        evaluator: The user's evaluator; each training uses a new one like it.
        engine: NNI's engine that runs the trainings.
        global_bounds: Whether the complexity-aware learning rate gets the bounds of the whole space.
        folder: Where finished trainings are kept, or None.

    Attributes:
        files: Where finished trainings are kept.
        momentum_label: Choice of momentum separation for all trainings, once :meth:`settle` has run.
        last: The last training that ran in this process.
    """

    def __init__(
        self,
        supernet: Supernet,
        base: SupernetStrategy,
        evaluator: Lightning,
        engine: Any,
        global_bounds: bool,
        folder: Path | None = None,
    ) -> None:
        self.supernet = supernet
        self.base = base
        self.evaluator = evaluator
        self.engine = engine
        self.global_bounds = global_bounds
        self.keep_files(folder)
        self.momentum_label: str | None = None
        self.last: RegionStrategy | None = None
        self._random_state: dict[str, Any] | None = None
        self._weights = ""

    def keep_files(self, folder: Path | None) -> None:
        """Say where finished trainings are kept: nowhere where Lightning only tries one batch of everything."""
        self.files = StageFiles(None if self.evaluator.trainer.fast_dev_run else folder)

    def settle(self, excluded: frozenset[str]) -> None:
        """Decide once what all trainings share; check the settings on the whole space.

        Args:
            excluded: Choices that momentum separation must not use by default.
        """
        whole = self.made({}, None)
        self._weights = whole.plan.weights.identity()
        for callback in whole.plan.callbacks:
            if isinstance(callback, MomentumSeparation) and not callable(callback.by):
                self.momentum_label = callback.by or default_label(whole.plan, excluded)

    def initial(self) -> Start:
        """Return the initial weights, and remember the random state that every training starts from.

        Both are those of the first run in the folder: other processes may have initialised other weights.
        """
        identity: dict[str, Any] = {"choices": [repr(m) for m in self.supernet.domain.mutables.values()]}
        if self._weights:
            identity["weights"] = self._weights
        with self.files.alone("initial"):
            saved = self.files.read("initial", identity)
            if saved is None:
                state = capture_random_state(self.evaluator.train_dataloaders)
                saved = {"weights": copied_weights(self.supernet.model), "random_state": state}
                self.files.write("initial", identity, saved)
        check_network(self.supernet.model, saved["weights"])
        self._random_state = saved["random_state"]
        return Start(saved["weights"])

    def domain(self, region: Region) -> Domain:
        """Return the choices of a region."""
        return self.supernet.domain.restricted(region) if region else self.supernet.domain

    def regions(self, region: Region, division: Division) -> Iterator[tuple[int, Region]]:
        """Yield what a division makes of a region, each with its group's number; nothing that holds no subnet."""
        for index, group in enumerate(division.groups):
            part = {**region, division.label: list(group)}
            if not self._is_empty(self.domain(part)):
                yield index, part

    def made(self, region: Region, name: str | None, epochs: int | None = None) -> RegionStrategy:
        """Make the strategy of one training and check it.

        Args:
            region: What to train.
            name: Name of the training's files; None for a check only.
            epochs: Epochs in place of the evaluator's own.

        Raises:
            ConfigurationError: The settings do not suit the region.
        """
        evaluator = fresh_evaluator(self.evaluator, epochs)
        changes: dict[str, Any] = {"checkpoint_dir": self.files.checkpoint_dir(name) if name else None}
        if isinstance(self.base.validate, Mapping):
            changes["validate"] = {
                key: sample for key, sample in self.base.validate.items() if _inside(sample, region)
            }
        # Reports tell trainings apart by the folder that the user gave: one made up is another in every run.
        told = f"{self.base.checkpoint_dir or ''}:{name}"
        strategy = RegionStrategy(self.base, self.domain(region), changes, told)
        for callback in [*strategy.callbacks, *evaluator.trainer.callbacks]:
            self._adapt(callback, region)
        strategy.initialize(RawFormatModelSpace(self.supernet.model, evaluator), self.engine)
        return strategy

    def run(self, name: str, region: Region, start: Start, epochs: int | None = None) -> dict[str, Any]:
        """Train a region, or read what an earlier run, or another process, has finished.

        Args:
            name: Name of the training's files.
            region: What to train.
            start: What to start from.
            epochs: Epochs in place of the evaluator's own.

        Returns:
            ``region``, ``weights``, ``results``, ``subnets``; with ``epochs`` also ``optimizer`` and
            ``momentum``, for trainings that follow; and ``callbacks`` where it was trained now.
        """
        strategy = self.made(region, name, epochs)
        identity = self._identity(strategy.plan, start)
        self.last = strategy
        finished = self.files.read(name, identity)
        if finished is None:
            with self.files.alone(name):
                finished = self.files.read(name, identity)  # once more: it may have had to wait
                if finished is None:
                    content = self._trained(strategy, region, start, epochs is not None)
                    self.files.write(name, identity, {k: v for k, v in content.items() if k != "callbacks"})
                    return content
        # Never attached by a fit, but a split by gradients may run its training step.
        strategy.plan.training_module.trainer = strategy.plan.trainer
        return finished

    def _trained(self, strategy: RegionStrategy, region: Region, start: Start, hand_over: bool) -> dict[str, Any]:
        """Train, and return what there is to keep."""
        keep = KeepState()
        strategy.callbacks += [keep, TakeState(start)]
        load_weights(self.supernet.model, start.weights)
        if self._random_state is not None:
            restore_random_state(self._random_state, self.evaluator.train_dataloaders)
        strategy.run()
        validation = strategy.module.validation
        own = [callback for callback in strategy.callbacks if not isinstance(callback, (KeepState, TakeState))]
        own += user_callbacks(strategy.plan.trainer)
        content: dict[str, Any] = {
            "region": {label: list(values) for label, values in region.items()},
            "weights": copied_weights(self.supernet.model),
            "results": {key: dict(metrics) for key, metrics in validation.results.items()},
            "subnets": {key: dict(sample) for key, sample in validation.subnets.items()},
            "callbacks": own,
        }
        return content | {"optimizer": keep.optimizer, "momentum": keep.momentum} if hand_over else content

    def _adapt(self, callback: Any, region: Region) -> None:
        if isinstance(callback, MomentumSeparation):
            callback.by = self.momentum_label if callback.by is None else callback.by
        if isinstance(callback, ComplexityAwareLR) and self.global_bounds and callback.bounds is None and region:
            callback.bounds = self._bounds(callback.complexity)

    def _bounds(self, complexity: Any) -> tuple[float, float]:
        """Return the smallest and the largest complexity of the whole space."""
        inputs = None
        if complexity == "flops":
            inputs = self.made({}, None).plan.example_inputs()
        extremes = find_extremes(resolve_complexity(complexity, self.supernet, inputs), self.supernet.domain)
        return extremes.minimum, extremes.maximum

    @staticmethod
    def _is_empty(domain: Domain) -> bool:
        """Tell whether the constraints leave no subnet, by trying all samples, where they are not too many."""
        try:
            domain.random(np.random.default_rng(0))
        except ConstraintError:
            if domain.size() > _ALL:
                raise
            return next(domain.grid(), None) is None
        return False

    def _identity(self, plan: Plan, start: Start) -> dict[str, Any]:
        trainer = plan.trainer
        return {
            "choices": [repr(mutable) for mutable in plan.supernet.domain.mutables.values()],
            "parts": list(part_names(plan)),
            "step_every": plan.step_every,
            "seed": plan.seed,
            "epochs": trainer.max_epochs,
            "steps": trainer.max_steps,
            "start": start.origin,
            "settings": _settings(plan) if self.files.folder is not None else {},
        }


def _settings(plan: Plan) -> dict[str, Any]:
    """Return all that decides a step; without the optimizer where only a running training could make it."""
    step, module = step_settings(plan), plan.training_module
    module.trainer = plan.trainer  # whose lengths a schedule may follow
    try:
        optimizer, schedulers = optimizer_and_schedulers(module.configure_optimizers())
    except Exception:  # the user's code, which may ask the trainer for what it does not know yet
        return step
    return optimizer_settings(optimizer, schedulers, step)


def _inside(sample: Any, region: Region) -> bool:
    return all(sample.get(label) in values for label, values in region.items())
