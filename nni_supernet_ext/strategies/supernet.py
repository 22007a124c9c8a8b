"""The one-shot strategy that trains a supernet with any combination of methods."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from nni.nas.evaluator.pytorch import Lightning, LightningModule
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.oneshot.pytorch.strategy import is_supernet
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import RandomOneShot
from pytorch_lightning.callbacks import Checkpoint

from nni_supernet_ext._compat.nni_experiment import announce_experiments
from nni_supernet_ext._compat.nni_fixes import apply_nni_fixes
from nni_supernet_ext._values import as_path
from nni_supernet_ext.core.component import Component
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.host import check_evaluator
from nni_supernet_ext.core.last_checkpoint import LastCheckpoint
from nni_supernet_ext.core.module import SupernetModule
from nni_supernet_ext.core.optimizer_settings import SameSettings
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.slots import DataSampler, Objective, PathSampler, WeightStore
from nni_supernet_ext.core.step_settings import step_settings
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.core.validation import SubnetValidation, validated_subnets
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.objectives.task import TaskLoss
from nni_supernet_ext.paths.uniform import UniformPathSampler
from nni_supernet_ext.recording import Recording, open_recording
from nni_supernet_ext.strategies.quality import usual_quality
from nni_supernet_ext.strategies.supernet_checks import argument_problems, listed
from nni_supernet_ext.strategies.trainer_callbacks import default_checkpoint
from nni_supernet_ext.strategies.training_data import TrainingData
from nni_supernet_ext.weights.shared import SharedWeights
from nni_supernet_ext.weights.trained_with import note_weight_store

_logger = logging.getLogger(__name__)


class SupernetStrategy(RandomOneShot):
    """Train a supernet: each decision of the training step has one exchangeable owner.

    With all defaults it is uniform single-path training, equal to NNI's ``RandomOneShot`` bit for bit on the
    same draws, but seeded and resumable, and validated on fixed subnets.

    Args:
        paths: Which subnets a step trains. Default :class:`~nni_supernet_ext.paths.UniformPathSampler`.
        data: Which examples a step sees. Default: the evaluator's loader as it is.
        weights: Which copy of the weights a subnet uses. Default
            :class:`~nni_supernet_ext.weights.SharedWeights`.
        objective: The loss of a draw. Default :class:`~nni_supernet_ext.objectives.TaskLoss`.
        callbacks: Lightning callbacks, among them :class:`~nni_supernet_ext.callbacks.ComplexityAwareLR` and
            :class:`~nni_supernet_ext.callbacks.MomentumSeparation`. Their order does not matter.
        step_every: ``'batch'``: one optimizer step a batch, over the summed gradients of its draws;
            ``'subnet'``: one optimizer step after each draw.
        gradient_clip_val: Clip gradients at this value before each step; None (default) does not clip.
        gradient_clip_algorithm: ``'norm'`` (global norm, default) or ``'value'``.
        seed: Seed of everything the strategy draws; equal on all ranks. Default 0. Weight initialisation and
            data order are the caller's (``pytorch_lightning.seed_everything``).
        validate: Number of random subnets validated beside the smallest and the largest (default 2), or a
            mapping from names to the samples to validate.
        recalibrate_batches: Training batches for the BN statistics of each validated subnet. Default 10;
            0 uses the running statistics of the training.
        checkpoint_dir: Folder of the checkpoint ``last.ckpt``, written after each epoch. If it holds one of the
            same configuration, training goes on from it, also for more epochs; one of another space, network,
            optimizer, scheduler or setting of the step is refused. Default: a new folder for each run, found again
            by ``NasExperiment.resume``.
        set_to_none: True (default): weights that a step did not sample stay as they are. False: their
            gradients are zero instead, so that momentum and weight decay go on moving them, as under torch 1.
        record: Whether the training appears in NNI's own tools (default): in the trial it runs in, or as an
            experiment of its own with a web page where ``NasExperiment.run`` is given a port.
        mutation_hooks: As in NNI: extra hooks that turn the user's own mutables into supernet modules.

    Raises:
        CheckpointError: The checkpoint is of another configuration.
        ConfigurationError: Every problem of the combination at once, before training starts.

    Example:
        >>> from nni.nas.experiment import NasExperiment
        >>> from nni_supernet_ext.testing import ToySpace, toy_evaluator
        >>> space, strategy = ToySpace(), SupernetStrategy(seed=1)
        >>> experiment = NasExperiment(space, toy_evaluator(), strategy)
        >>> experiment.run()  # doctest: +SKIP
        True

    Reference:
        Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
        section 3.2 (uniform sampling of single paths) and Eq. 7 (the loss).
    """

    def __init__(
        self,
        *,
        paths: PathSampler | None = None,
        data: DataSampler | None = None,
        weights: WeightStore | None = None,
        objective: Objective | None = None,
        callbacks: Sequence[pl.Callback] = (),
        step_every: str = "batch",
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str = "norm",
        seed: int = 0,
        validate: int | Mapping[str, Sample] = 2,
        recalibrate_batches: int = 10,
        checkpoint_dir: str | Path | None = None,
        set_to_none: bool = True,
        record: bool = True,
        mutation_hooks: list[Any] | None = None,
    ) -> None:
        apply_nni_fixes()
        announce_experiments()
        super().__init__(mutation_hooks=mutation_hooks)
        self.paths = paths if paths is not None else UniformPathSampler()
        self.data = data
        self.weights = weights if weights is not None else SharedWeights()
        self.objective = objective if objective is not None else TaskLoss()
        self.callbacks: list[Any] = listed(callbacks)
        self.step_every = step_every
        self.gradient_clip_val = gradient_clip_val
        self.gradient_clip_algorithm = gradient_clip_algorithm
        self.seed = seed
        self.validate = validate
        self.recalibrate_batches = recalibrate_batches
        self.checkpoint_dir: Path | None = as_path(checkpoint_dir)
        self.set_to_none = set_to_none
        self.record = record
        problems = argument_problems(self)
        if problems:
            raise ConfigurationError(problems)
        self._training_name = ""
        self._domain: Domain | None = None
        self._plan: Plan | None = None
        self._inner: LightningModule | None = None
        self._evaluator: Lightning | None = None

    # What NNI calls

    def mutate_model(self, model: Any) -> Any:
        """Turn a model space into a supernet, in place; see NNI's ``OneShotStrategy.mutate_model``."""
        # Read the choices first: NNI's mutation loses the prior weights of a LayerChoice.
        self._domain = Domain(model)
        # A supernet is trained further as it is: after a refused or an earlier run.
        return model if is_supernet(model) else super().mutate_model(model)

    def _initialize(self, model_space: RawFormatModelSpace, engine: SequentialExecutionEngine) -> Any:
        self._evaluator = check_evaluator(model_space.evaluator, used=self._resumes(model_space.evaluator))
        self._data = TrainingData(self._evaluator)
        return super()._initialize(model_space, engine)

    def configure_oneshot_module(self, training_module: LightningModule) -> SupernetModule:
        """Check the whole run and make the Lightning module that trains it."""
        evaluator = self._evaluator
        assert evaluator is not None and self._model_space is not None
        model = self._model_space.model_space
        supernet = Supernet(model, self._domain)
        known = [c for c in evaluator.trainer.callbacks if isinstance(c, Component) or getattr(c, "claims", None)]
        self._plan = Plan(
            supernet=supernet,
            paths=self.paths,
            data=self.data,
            weights=self.weights,
            objective=self.objective,
            callbacks=[*self.callbacks, *known],
            step_every=self.step_every,
            gradient_clip_val=self.gradient_clip_val,
            gradient_clip_algorithm=self.gradient_clip_algorithm,
            seed=self.seed,
            training_module=training_module,
            trainer=evaluator.trainer,
            train_loader=self._data.loader,
            datamodule=evaluator.datamodule,
            set_to_none=self.set_to_none,
        )
        # Before the checks: some look at what the evaluator's steps give to the model.
        training_module.set_model(model)
        self._plan.check()
        for component in self._plan.components():
            if isinstance(component, Component):
                component.arrange(self._plan)
        subnets = validated_subnets(self._plan, self.validate)
        validation = SubnetValidation(self._plan, subnets, self.recalibrate_batches)
        return SupernetModule(training_module, self._plan, validation)

    def train_dataloader(self, train_dataloader_fn: Any, val_dataloader_fn: Any) -> Any:
        """Return the loader to train from, rebuilt by the data slot where it is filled."""
        loader = train_dataloader_fn()
        return loader if self.data is None else self.data.wrap(loader)

    def _run(self) -> None:
        evaluator = self._mutated_evaluator
        supernet = self.plan.supernet
        note_weight_store(supernet.model, self.weights)
        recording = open_recording(self.record, supernet.domain, supernet.model, training=True)
        with recording, self._attached(evaluator, recording):
            try:
                super()._run()
            finally:
                self.module.cleanup()

    def list_models(self, sort: bool = True, limit: int | None = 1) -> Iterator[RawFormatModelSpace]:
        """Yield the validated fixed subnets, best first.

        Training a supernet does not choose a subnet: that is what a search strategy is for. So only the
        subnets whose quality is known are listed.

        Args:
            sort: Best metric first (default); otherwise in the order of validation.
            limit: Most models to yield; None yields all.

        Yields:
            Frozen model spaces, each with its ``sample``.
        """
        validation = self.module.validation
        names = [name for name in validation.subnets if validation.results.get(name)]
        if sort:
            names.sort(key=lambda name: usual_quality(validation.results[name]), reverse=True)
        for name in names[:limit]:
            yield self.model_space.freeze(dict(validation.subnets[name]))

    def state_dict(self) -> dict[str, Any]:
        """Return where the checkpoint is, or will be: known before training, so a killed run can resume."""
        folder = self._checkpoint_folder
        return {} if folder is None else {"ckpt_path": str((folder / "last.ckpt").resolve())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the checkpoint that :meth:`state_dict` names, if it was ever written."""
        path = state_dict.get("ckpt_path")
        if path is None:
            return
        self.checkpoint_dir = Path(path).parent
        if not Path(path).exists():
            _logger.warning("No checkpoint was written before the run ended; training starts afresh.")

    # What users read

    @property
    def module(self) -> SupernetModule:
        """The Lightning module that trains the supernet; available once the experiment has started."""
        return self.oneshot_module

    @property
    def plan(self) -> Plan:
        """The checked plan of the run; available once the experiment has started."""
        if self._plan is None:
            raise RuntimeError("The strategy is expected to have been started, but was not. Run the experiment.")
        return self._plan

    @property
    def trained(self) -> Supernet:
        """The supernet, for evaluation and extraction of subnets."""
        return self.plan.supernet

    # Inside

    @property
    def _mutated_evaluator(self) -> Lightning:
        assert self._mutated_model_space is not None
        return self._mutated_model_space.evaluator

    def _resumes(self, evaluator: Any) -> bool:
        """Tell whether a checkpoint says where to go on, so that it does not matter where the trainer stands."""
        given = getattr(evaluator, "fit_kwargs", {}).get("ckpt_path")
        own = self.checkpoint_dir is not None and (self.checkpoint_dir / "last.ckpt").exists()
        return given is not None or own

    @property
    def _checkpoint_folder(self) -> Path | None:
        """Folder of ``last.ckpt``; made up once where the user gave none, None where checkpoints are off."""
        if self.checkpoint_dir is None and self._evaluator is not None:
            trainer = self._evaluator.trainer
            if trainer.checkpoint_callback is None:
                return None
            self.checkpoint_dir = Path(trainer.default_root_dir) / "supernet_checkpoints" / uuid.uuid4().hex[:8]
        return self.checkpoint_dir

    @contextmanager
    def _attached(self, evaluator: Lightning, recording: Recording) -> Iterator[None]:
        """Add the strategy's callbacks and checkpoint to the trainer for the time of the run."""
        trainer, fit_kwargs = evaluator.trainer, evaluator.fit_kwargs
        before, given = list(trainer.callbacks), dict(fit_kwargs)
        own = [*self.callbacks, *recording.callbacks(self._training_name)]
        own.append(SameSettings(step_settings(self.plan)))
        kept = before
        folder = self._checkpoint_folder
        if folder is not None:
            default = default_checkpoint(trainer)
            kept = [c for c in before if c is not default]
            own.append(LastCheckpoint(folder))
            last = folder / "last.ckpt"
            if last.exists() and fit_kwargs.get("ckpt_path") is None:
                _logger.info("Resuming from %s.", last)
                fit_kwargs["ckpt_path"] = str(last)
        # Checkpoints last, as Lightning orders them: they save what the others have just done.
        trainer.callbacks = sorted([*kept, *own], key=lambda callback: isinstance(callback, Checkpoint))
        try:
            yield
        finally:
            trainer.callbacks = before
            fit_kwargs.clear()
            fit_kwargs.update(given)
            self._data.give_back()
