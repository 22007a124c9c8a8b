"""Evolutionary search on a trained supernet, in process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nni.nas.space import ModelStatus, RawFormatModelSpace
from nni.nas.strategy.base import Strategy
from torch import nn
from tqdm.auto import tqdm

from nni_supernet_ext._compat.nni_experiment import announce_experiments
from nni_supernet_ext._compat.nni_fixes import apply_nni_fixes
from nni_supernet_ext._values import as_path
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.slots import WeightStore
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.errors import ConfigurationError, TrainingDivergedError
from nni_supernet_ext.recording import Recording, open_recording
from nni_supernet_ext.strategies.breeding import Breeding
from nni_supernet_ext.strategies.evaluated import EvaluatedSubnet, best_evaluated
from nni_supernet_ext.strategies.evaluation_data import checked_evaluator
from nni_supernet_ext.strategies.evolution_checks import argument_problems, check_space
from nni_supernet_ext.strategies.quality import quality
from nni_supernet_ext.strategies.search_setup import set_up_search
from nni_supernet_ext.strategies.subnet_model import SubnetModel, submit_model
from nni_supernet_ext.weights.shared import SharedWeights
from nni_supernet_ext.weights.trained_with import refuse_shared_weights

_logger = logging.getLogger(__name__)


class SupernetEvolution(Strategy):
    """Search a trained supernet by evolution, evaluating each subnet in place with recalibrated BN.

    Use it in a second ``NasExperiment`` on the same model space. No architecture is evaluated twice; one that
    breaks the budget is not evaluated at all.

    Args:
        population: Subnets per cycle. Default 50.
        cycles: Cycles after the random first population. Default 20.
        parents: Best subnets so far that breed. Default 10.
        mutation_probability: Chance of each choice to be redrawn in a mutation. Default 0.1.
        crossover_share: Share of each cycle's children made by crossover; the rest are mutations. Default 0.5.
        metric: Logged metric to optimise. Default ``'val_acc'``.
        mode: ``'max'`` or ``'min'``.
        max_parameters: Upper bound on parameters.
        max_flops: Upper bound on multiply-adds per example.
        constraint: Predicate on samples.
        count_flops: Whether to count FLOPs even without a bound on them. Default False.
        recalibrate_batches: Training batches for each subnet's BN statistics. Default 20; 0 for none.
        limit_batches: Most validation batches per subnet. Default: the trainer's ``limit_val_batches``.
        weights: The training's weight store. Default shared weights.
        journal: File that remembers every evaluation: a killed search that is started again with the same
            arguments repeats none. Use another file for other data.
        seed: Seed of the search.
        record: Whether every evaluated subnet appears in NNI's own tools as a trial (default).
        progress: Whether to show a progress bar.
        subnets_per_trial: With NNI's training service (see ``distributed_config``): how many subnets one trial
            evaluates, so that its start is paid once for all of them. Default 25.
        shared_folder: With NNI's training service: folder for the supernet that all machines see under the same
            name. Default: the experiment's own, which suits trials on this machine.

    Attributes:
        history: Every evaluated subnet in order.

    Raises:
        CheckpointError: The journal, or what a resumed experiment brings, is of other weights or another search.
        ConfigurationError: Bad arguments, all at once; a supernet of few-shot parts without their ``weights``.
        ConstraintError: No subnet satisfies the budget.
        SpaceError: The model space is no trained supernet, or has a choice without finite candidates.

    Example:
        >>> from nni.nas.experiment import NasExperiment
        >>> search = SupernetEvolution(population=20, cycles=5, max_parameters=1e6)
        >>> NasExperiment(space, evaluator, search).run()  # doctest: +SKIP
        >>> search.best.sample, search.best_network()  # doctest: +SKIP

    Reference:
        Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
        Algorithm 1: population 50, 20 cycles, 10 parents, mutation 0.1, half crossover, half mutation.

    Deviations:
        The paper counts the random first population among its 20 cycles.
    """

    def __init__(
        self,
        *,
        population: int = 50,
        cycles: int = 20,
        parents: int = 10,
        mutation_probability: float = 0.1,
        crossover_share: float = 0.5,
        metric: str = "val_acc",
        mode: str = "max",
        max_parameters: float | None = None,
        max_flops: float | None = None,
        constraint: Callable[[Sample], bool] | None = None,
        count_flops: bool = False,
        recalibrate_batches: int = 20,
        limit_batches: int | None = None,
        weights: WeightStore | None = None,
        journal: str | Path | None = None,
        seed: int = 0,
        record: bool = True,
        progress: bool = True,
        subnets_per_trial: int = 25,
        shared_folder: str | Path | None = None,
    ) -> None:
        apply_nni_fixes()
        announce_experiments()
        super().__init__()
        self.population = population
        self.cycles = cycles
        self.parents = parents
        self.mutation_probability = mutation_probability
        self.crossover_share = crossover_share
        self.metric = metric
        self.mode = mode
        self.max_parameters = max_parameters
        self.max_flops = max_flops
        self.constraint = constraint
        self.count_flops = count_flops
        self.recalibrate_batches = recalibrate_batches
        self.limit_batches = limit_batches
        self.weights = weights if weights is not None else SharedWeights()
        self.journal: Path | None = as_path(journal)
        self.seed = seed
        self.record = record
        self.progress = progress
        self.subnets_per_trial = subnets_per_trial
        self.shared_folder: Path | None = as_path(shared_folder)
        self.history: list[EvaluatedSubnet] = []
        self._models: list[SubnetModel] = []
        self._restored: dict[str, Any] = {}
        self._stopped = False
        problems = argument_problems(self)
        if problems:
            raise ConfigurationError(problems)

    # What NNI calls

    def _initialize(self, model_space: Any, engine: Any) -> Any:
        if not isinstance(model_space, RawFormatModelSpace):
            raise ConfigurationError(
                f"The model space is expected to be a trained supernet in the format 'raw', but got "
                f"{type(model_space).__name__}. Train the same model space with SupernetStrategy first and leave "
                "`config` out, or use NasExperimentConfig('sequential', 'raw', 'local')."
            )
        self.supernet = Supernet(model_space.model_space)
        refuse_shared_weights(self.supernet.model, self.weights)
        check_space(self.supernet.domain)
        self._home = next(self.supernet.model.parameters()).device
        self._setup = set_up_search(self, checked_evaluator(model_space.evaluator), engine)
        return model_space

    def _run(self) -> None:
        with open_recording(
            # NNI's own manager shows the trials of its training service.
            self.record and self._setup.distributed is None,
            self.supernet.domain,
            self.supernet.model,
            training=False,
            metric=self.metric,
            mode=self.mode,
        ) as recording:
            self._search(recording)

    def _search(self, recording: Recording) -> None:
        breeding = Breeding(
            self.supernet.domain,
            self._setup.budget,
            self.population,
            self.mutation_probability,
            self.crossover_share,
            np.random.default_rng(self.seed),
        )
        if self._restored.get("evaluations"):
            self._setup.journal.load_state_dict(self._restored)
        total = self.population * (self.cycles + 1)
        with tqdm(total=total, desc="search", disable=not self.progress, unit="subnet") as bar:
            for cycle in range(self.cycles + 1):
                children = breeding.children(self._parents())
                for sample in self._affordable(children):
                    self._submit(sample, recording)
                    bar.update()
                if self.history:
                    self._show(bar, cycle)
                if self._stopped:
                    _logger.info("The experiment's budget is used up; the search stops.")
                    return
                if len(children) < self.population:
                    _logger.info("No architecture is left to evaluate; the search stops after cycle %d.", cycle)
                    return

    def _affordable(self, children: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield architectures up to the first one that is not known and exceeds the experiment's budget."""
        unknown = [sample for sample in children if self._setup.journal.get(sample) is None]
        if self._setup.distributed is not None and unknown and self.engine.budget_available():
            self._setup.distributed.evaluate(unknown, self._setup.journal.add)
        for sample in children:
            self._stopped = self._setup.journal.get(sample) is None and not self.engine.budget_available()
            if self._stopped:
                return
            yield sample

    def _cleanup(self) -> None:
        self.supernet.model.to(self._home)
        super()._cleanup()

    def list_models(self, sort: bool = True, limit: int | None = None) -> Iterator[SubnetModel]:
        """Yield the evaluated subnets, best first.

        Args:
            sort: Best first (default); otherwise in the order of evaluation.
            limit: Most models to yield; None yields all.

        Yields:
            Models whose ``sample`` is the plain architecture dict and whose ``executable_model()`` is a
            network of its own, with the inherited weights and the BN statistics of its evaluation.
        """
        models = sorted(self._models, key=self._value, reverse=True) if sort else self._models
        yield from models[:limit]

    def state_dict(self) -> dict[str, Any]:
        """Return every evaluation so far; a resumed search repeats none of them."""
        return self._setup.journal.state_dict() if hasattr(self, "_setup") else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the evaluations of an interrupted search."""
        self._restored = dict(state_dict)

    # What users read

    @property
    def best(self) -> EvaluatedSubnet:
        """The best subnet found so far; refused where no subnet has a value of the metric that can be ranked."""
        if not self.history:
            raise RuntimeError("The search is expected to have evaluated a subnet, but has none. Run it first.")
        return best_evaluated(self.history, self.metric, self.mode)

    def best_network(self) -> nn.Module:
        """Return the best subnet as a network of its own, with its inherited weights and recalibrated BN.

        It is in eval mode: call its ``train()`` before a training of yours, as :func:`retrain` does by itself.
        """
        return self._extract(self.best.sample)

    # Inside

    def _show(self, bar: Any, cycle: int) -> None:
        """Show the best value so far; say early where there is none."""
        try:
            bar.set_postfix(best=f"{self.best.metrics[self.metric]:.4f}")
        except TrainingDivergedError as error:
            if cycle == 0:
                _logger.warning("%s The search goes on.", error)

    def _parents(self) -> list[dict[str, Any]]:
        """Return the best architectures so far; none before the first population."""
        best = sorted(self._models, key=self._value, reverse=True)[: self.parents]
        return [model.sample for model in best if model.sample is not None]

    def _submit(self, sample: dict[str, Any], recording: Recording) -> None:
        sign = 1 if self.mode == "max" else -1
        model = SubnetModel(sample, self._measure, self._extract, self.metric, sign)
        known = self._setup.journal.get(sample)
        if known is not None:
            model.take(known)
        else:
            submit_model(self.engine, model)
        if model.status == ModelStatus.Failed:
            model.check_metric()  # A metric that nothing logs is a mistake, not the subnet's failure.
            _logger.warning("The subnet %r failed; the search goes on without it.", model)
            return
        self._models.append(model)
        parameters, flops = self._setup.budget.costs(sample)
        self.history.append(EvaluatedSubnet(sample, model.results, parameters, flops))
        costs = {"parameters": parameters} if flops is None else {"parameters": parameters, "flops": flops}
        recording.subnet(sample, {"default": model.results[self.metric], **model.results, **costs})

    def _measure(self, sample: dict[str, Any]) -> dict[str, float]:
        found = self._setup.evaluator.evaluate(sample)
        self._setup.journal.add(sample, found)
        return found

    def _extract(self, sample: dict[str, Any]) -> nn.Module:
        network = self._setup.evaluator.extract(sample).to(self._home)
        self.supernet.model.to(self._home)
        return network

    def _value(self, model: SubnetModel) -> float:
        return quality(model.results[self.metric], self.mode)
