"""Train a supernet as several sub-supernets (few-shot NAS)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import RandomOneShot
from torch import nn

from nni_supernet_ext._compat.nni_fixes import apply_nni_fixes
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.host import check_evaluator
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.strategies.few_shot_checks import (
    argument_problems,
    evaluator_problems,
    only_problems,
    split_problems,
)
from nni_supernet_ext.strategies.part_training import PartTraining
from nni_supernet_ext.strategies.quality import usual_quality
from nni_supernet_ext.strategies.splits import ChoiceSplit, Division, SplitContext, SplitRule
from nni_supernet_ext.strategies.stage_state import Start
from nni_supernet_ext.strategies.sub_supernets import (
    Region,
    SubSupernet,
    SubSupernetWeights,
    load_weights,
)
from nni_supernet_ext.strategies.subnet_model import SubnetModel
from nni_supernet_ext.strategies.supernet import SupernetStrategy
from nni_supernet_ext.strategies.supernet_checks import listed
from nni_supernet_ext.weights.trained_with import note_weight_store

_logger = logging.getLogger(__name__)


class FewShotStrategy(RandomOneShot):
    """Split a supernet on one choice, or recursively on several, and train each sub-supernet on its own.

    Sub-supernets are trained one after the other with the settings of ``base``, each with its own epochs,
    optimizer and checkpoint. Each starts from the same random state, so data order and path draws are those it
    would have alone: it does not matter which are trained together, in which process and in which order. With
    a single part that holds all candidates, training equals ``base`` alone, bit for bit.

    Args:
        base: The training of each sub-supernet: any ``SupernetStrategy``, with or without complexity-aware
            learning rate and momentum separation. Its ``checkpoint_dir`` holds the files of all parts.
            Default: ``SupernetStrategy()``.
        splits: Rules, one for each level of recursion. Default: one level, ``ChoiceSplit()``: a random choice,
            one sub-supernet per candidate.
        warmup_epochs: Epochs of training before each level's split, with the settings of ``base``: a number
            for the first level, or one for each. Default 0.
        transfer: What a sub-supernet takes from the warm-up before it: ``'weights'`` (default),
            ``'weights_and_optimizer'``, or ``'none'``: the initial weights again.
        complexity_bounds: Smallest and largest complexity for the complexity-aware learning rate:
            ``'global'``, those of the whole space (default, as the authors do), or ``'part'``, those of the
            sub-supernet.
        only: Numbers of the sub-supernets to train in this run. The others are read from ``checkpoint_dir``
            where they are finished, and are missing from the search where not. Default: all.

    Attributes:
        regions: The region of every sub-supernet: label of each split choice -> candidates. Known before
            training unless a rule looks at trained weights.
        part_callbacks: The callbacks of each sub-supernet trained in this run, by its number: copies of those of
            ``base``, then of the evaluator's. The ones that were given stay as they are.

    Raises:
        ConfigurationError: All problems at once: more parts than candidates, momentum separation on the split
            choice, a choice with a single candidate, a gradient rule without warm-up, and those of ``base``.

    Example:
        >>> from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
        >>> base = SupernetStrategy(callbacks=[ComplexityAwareLR(), MomentumSeparation(by='width')])
        >>> few_shot = FewShotStrategy(base, [ChoiceSplit('op')])
        >>> # NasExperiment(space, evaluator, few_shot).run(), then
        >>> # NasExperiment(space, evaluator, SupernetEvolution(weights=few_shot.weights)).run()

    Reference:
        Zhao et al., "Few-shot Neural Architecture Search", ICML 2021, the sections on splitting the supernet and
        on transferring its weights. Splits by gradients: Hu et al., "Generalizing Few-Shot NAS with Gradient
        Matching", ICLR 2022, the section on the gradient matching score. Global bounds and momentum separation
        on another choice: Jeon et al., "Subnet-Aware Dynamic Supernet Training for Neural Architecture Search",
        CVPR 2025, where it is combined with few-shot NAS; the methods themselves: sections 3.2 and 3.3.

    Deviations:
        All sub-supernets start from the same initial weights and see the same order of data, so that differences
        between them are not chance. Each keeps the weights of all candidates, of which those outside its region
        are never trained.
    """

    def __init__(
        self,
        base: SupernetStrategy | None = None,
        splits: Sequence[SplitRule] | None = None,
        *,
        warmup_epochs: int | Sequence[int] = 0,
        transfer: str = "weights",
        complexity_bounds: str = "global",
        only: Iterable[int] | None = None,
    ) -> None:
        apply_nni_fixes()
        self.base = base if base is not None else SupernetStrategy()
        super().__init__(mutation_hooks=getattr(self.base, "extra_mutation_hooks", None))
        self.splits: list[SplitRule] = [ChoiceSplit()] if splits is None else listed(splits)
        self.warmup_epochs = warmup_epochs
        self.transfer = transfer
        self.complexity_bounds = complexity_bounds
        self.only: tuple[int, ...] | None = tuple(only) if isinstance(only, Iterable) else only
        self.regions: list[Region] = []
        self.part_callbacks: dict[int, list[Any]] = {}
        self._folder: Path | None = None
        self._finished: list[tuple[SubSupernet, dict[str, Any]]] = []
        problems = list(argument_problems(self))
        if problems:
            raise ConfigurationError(problems)

    # What NNI calls

    def _initialize(self, model_space: RawFormatModelSpace, engine: Any) -> Any:
        evaluator = check_evaluator(model_space.evaluator, used=True)  # Each part trains in a new one like it.
        domain = Domain(model_space.model_space)
        problems = [*evaluator_problems(evaluator), *split_problems(self, domain, evaluator.trainer.callbacks)]
        if problems:
            raise ConfigurationError(problems)
        model: Any = self.base.mutate_model(model_space.model_space)
        self._mutated_model_space = RawFormatModelSpace(model, evaluator)
        self._make_folder(evaluator)
        supernet = Supernet(model, domain)
        bounds = self.complexity_bounds == "global"
        self._training = PartTraining(supernet, self.base, evaluator, engine, bounds, self.checkpoint_dir)
        self._training.settle(frozenset(label for rule in self.splits for label in rule.split_labels()))
        if not any(rule.needs_warmup for rule in self.splits):
            self._check_parts()
        return self._mutated_model_space

    def _run(self) -> None:
        self._training.keep_files(self.checkpoint_dir)
        regions: list[Region] = []
        self._finished = []
        self._initial = self._training.initial()
        try:
            for region, start in self._leaves((), {}, self._initial, self._initial):
                self._train(len(regions), region, start)
                regions.append(region)
        finally:  # Each part's training notes its own store.
            note_weight_store(self.trained.model, self.weights)
        self.regions = regions
        problems = list(only_problems(self, len(regions)))
        if problems:  # known only now where a rule looks at trained weights; what else was trained is in its files
            raise ConfigurationError(problems)
        _logger.info("%d of %d sub-supernets are trained.", len(self._finished), len(regions))

    def list_models(self, sort: bool = True, limit: int | None = 1) -> Iterator[SubnetModel]:
        """Yield the validated fixed subnets of all sub-supernets.

        Args:
            sort: Best metric first (default); otherwise in the order of the sub-supernets.
            limit: Most models to yield; None yields all.

        Yields:
            Models with their ``sample``; ``executable_model()`` has the weights of the owner and the BN statistics
            that its training left: see ``functional.recalibrate_batch_norm``.
        """
        found = [
            (dict(saved["subnets"][name]), dict(metrics))
            for part, saved in self._finished
            for name, metrics in part.results.items()
            if metrics
        ]
        if sort:
            found.sort(key=lambda entry: usual_quality(entry[1]), reverse=True)
        for sample, metrics in found[:limit]:
            yield SubnetModel(sample, _known(metrics), self._extract, next(iter(metrics)), 1)

    def _extract(self, sample: dict[str, Any]) -> nn.Module:
        self.weights.activate(self.trained, sample)
        return self.trained.extract(sample)

    def state_dict(self) -> dict[str, Any]:
        """Return where the sub-supernets are, or will be: known before training, so a killed run can resume."""
        folder = self.checkpoint_dir
        return {} if folder is None else {"checkpoint_dir": str(folder)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on in the folder that :meth:`state_dict` names."""
        if "checkpoint_dir" in state_dict:
            self._folder = Path(state_dict["checkpoint_dir"])

    # What users read

    @property
    def checkpoint_dir(self) -> Path | None:
        """Folder of the files of all parts: the base's, or one made up for this training; None without files."""
        return self._folder if self._folder is not None else self.base.checkpoint_dir

    @property
    def record(self) -> bool:
        """Whether the training appears in NNI's own tools: the base's argument of that name."""
        return self.base.record

    @property
    def weights(self) -> SubSupernetWeights:
        """The weights of all trained sub-supernets, for ``SupernetEvolution(weights=...)``."""
        return SubSupernetWeights([part for part, _ in self._finished])

    @property
    def trained(self) -> Supernet:
        """The supernet with all choices; activate samples through :attr:`weights`."""
        return self._training.supernet

    # Inside

    def _leaves(
        self, path: tuple[int, ...], region: Region, start: Start, warm: Start
    ) -> Iterator[tuple[Region, Start]]:
        """Split recursively and yield the region and the start of every sub-supernet, in order.

        Args:
            path: Place in the recursion: numbers of the groups taken so far.
            region: What is left there.
            start: What its trainings start from.
            warm: What the last warm-up above has trained.
        """
        level = len(path)
        if level == len(self.splits):
            yield region, start
            return
        given = self.warmup_epochs
        epochs = list(given) if isinstance(given, Sequence) else [given]
        if level < len(epochs) and epochs[level]:
            saved = self._training.run(_name("warmup", path), region, start, epochs[level])
            words = f"{self.transfer} after {epochs[level]} epochs of {_name('warmup', path)}"
            warm = Start(saved["weights"], saved["optimizer"], saved["momentum"], words)
            start = self._handed_over(warm)
        division = self._division(path, region, warm)
        for index, part in self._training.regions(region, division):
            yield from self._leaves((*path, index), part, start, warm)

    def _handed_over(self, warm: Start) -> Start:
        """Return what the sub-supernets of a warmed-up supernet start from."""
        if self.transfer == "none":
            return self._initial
        return warm if self.transfer == "weights_and_optimizer" else Start(warm.weights, origin=warm.origin)

    def _division(self, path: tuple[int, ...], region: Region, warm: Start) -> Division:
        """Decide a split, or read how it was decided before the run was interrupted."""
        name, rule, training = _name("split", path), self.splits[len(path)], self._training
        if not rule.needs_warmup:
            return rule.divide(self._context(path, region))
        decided = training.files.read_division(name, rule, training.domain(region))
        if decided is None:
            load_weights(training.supernet.model, warm.weights)
            decided = rule.divide(self._context(path, region))
            training.files.write_division(name, rule, decided)
        return decided

    def _context(self, path: tuple[int, ...], region: Region) -> SplitContext:
        training = self._training
        supernet = Supernet(training.supernet.model, training.domain(region))
        reserved = {*self.base.paths.shared_choices}
        if training.momentum_label is not None:
            reserved.add(training.momentum_label)
        # The length keeps the streams apart: numpy takes [0] and [0, 0] for the same seed.
        rng = np.random.default_rng([self.base.seed, len(path), *path])
        if training.last is None:
            return SplitContext(supernet, rng, reserved, seed=self.base.seed)
        plan = training.last.plan
        return SplitContext(supernet, rng, reserved, plan.training_module, plan.train_loader(), seed=self.base.seed)

    def _planned(self, path: tuple[int, ...], region: Region) -> Iterator[Region]:
        """Yield the regions of all sub-supernets without training anything."""
        if len(path) == len(self.splits):
            yield region
            return
        division = self.splits[len(path)].divide(self._context(path, region))
        for index, part in self._training.regions(region, division):
            yield from self._planned((*path, index), part)

    def _train(self, index: int, region: Region, start: Start) -> None:
        name = f"part-{index}"
        if self.only is not None and index not in self.only:
            files = self._training.files
            if files.folder is None or not (files.folder / f"{name}.pt").exists():
                return
        saved = self._training.run(name, region, start)
        if "callbacks" in saved:
            self.part_callbacks[index] = saved["callbacks"]
        self._finished.append((SubSupernet(index, saved["region"], saved["weights"], saved["results"]), saved))

    def _check_parts(self) -> None:
        """Check the settings for every sub-supernet before the first one is trained."""
        problems: list[str] = []
        self.regions = list(self._planned((), {}))
        for region in self.regions:
            try:
                self._training.made(region, None)
            except ConfigurationError as error:
                problems += [problem for problem in error.problems if problem not in problems]
        problems += only_problems(self, len(self.regions))
        if problems:
            raise ConfigurationError(problems)

    def _make_folder(self, evaluator: Any) -> None:
        """Choose a folder for the files where the user gave none, unless checkpoints are switched off."""
        if self.checkpoint_dir is None and evaluator.trainer.checkpoint_callback is not None:
            root = Path(evaluator.trainer.default_root_dir)
            self._folder = root / "supernet_checkpoints" / uuid.uuid4().hex[:8]


def _name(kind: str, path: tuple[int, ...]) -> str:
    return "-".join([kind, *map(str, path)])


def _known(metrics: dict[str, float]) -> Callable[[dict[str, Any]], dict[str, float]]:
    return lambda sample: metrics
