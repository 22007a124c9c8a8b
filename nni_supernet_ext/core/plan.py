"""The whole run before it starts: every part in one place, and all problems raised at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nni.nas.evaluator.pytorch import LightningModule
from pytorch_lightning import Callback
from torch.optim import Optimizer

from nni_supernet_ext.core.batches import example_inputs
from nni_supernet_ext.core.component import Component
from nni_supernet_ext.core.declared import claim_problems, claims_of, hook_problems, problems_of, with_bases
from nni_supernet_ext.core.evaluation import attached
from nni_supernet_ext.core.host import callback_problems
from nni_supernet_ext.core.loaders import detached_batches
from nni_supernet_ext.core.slots import DataSampler, Objective, PathSampler, WeightStore
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.errors import ConfigurationError

STEP_EVERY = ("batch", "subnet")
CLIP_ALGORITHMS = ("norm", "value")


@dataclass
class Plan:
    """Hold everything a component may need to know of the run.

    Attributes:
        supernet: The mutated space.
        paths: Filled path slot.
        data: Filled data slot, or None for the loader as it is.
        weights: Filled weights slot.
        objective: Filled objective slot.
        callbacks: The strategy's callbacks, and those of the trainer that declare ``claims``.
        step_every: ``'batch'`` or ``'subnet'``.
        gradient_clip_val: Threshold or None.
        gradient_clip_algorithm: ``'norm'`` or ``'value'``.
        seed: Seed of the run.
        training_module: The evaluator's Lightning module.
        trainer: The evaluator's Lightning trainer.
        train_loader: Function that returns the evaluator's training loader; before a training it prepares and sets
            up the data module.
        set_to_none: Whether gradients are dropped (True, default) or zeroed before each optimizer step.
        optimizer: The evaluator's optimizer, once training has made it; None in the first round of checks.
        schedulers: Its learning-rate schedulers, once they exist.
        total_iterations: Batches of the whole training, once known; None where it has no known end.
        datamodule: The evaluator's data module, or None.

    Raises:
        ConfigurationError: :meth:`check` finds problems; all of them at once.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> from nni_supernet_ext.testing import toy_evaluator, toy_supernet
        >>> strategy, evaluator, supernet = SupernetStrategy(), toy_evaluator(), toy_supernet()
        >>> evaluator.module.set_model(supernet.model)
        >>> plan = Plan(
        ...     supernet, strategy.paths, strategy.data, strategy.weights, strategy.objective,
        ...     callbacks=(), step_every='batch', gradient_clip_val=0.0, gradient_clip_algorithm='norm', seed=0,
        ...     training_module=evaluator.module, trainer=evaluator.trainer,
        ...     train_loader=lambda: evaluator.train_dataloaders,
        ... )
        >>> plan.example_inputs().shape
        torch.Size([2, 3, 8, 8])
        >>> plan.check()
        Traceback (most recent call last):
        ...
        nni_supernet_ext.errors.ConfigurationError: Argument `gradient_clip_val` is expected to be a positive ...
    """

    supernet: Supernet
    paths: PathSampler
    data: DataSampler | None
    weights: WeightStore
    objective: Objective
    callbacks: Sequence[Any]
    step_every: str
    gradient_clip_val: float | None
    gradient_clip_algorithm: str
    seed: int
    training_module: LightningModule
    trainer: Any
    train_loader: Callable[[], Any]
    set_to_none: bool = True
    optimizer: Optimizer | None = None
    schedulers: Sequence[Any] = field(default_factory=tuple)
    total_iterations: int | None = None
    datamodule: Any = None

    def components(self) -> Iterator[Any]:
        """Iterate over all parts that may declare claims and problems, slots first."""
        yield from (part for part in (self.paths, self.data, self.weights, self.objective) if part is not None)
        yield from self.callbacks

    def observers(self) -> Iterator[Any]:
        """Iterate over all parts whose step hooks run: slots, what they wrap as ``base``, callbacks."""
        for component in self.components():
            yield from with_bases(component)

    def owners(self) -> Iterator[Any]:
        """Iterate over the parts that decide something: the slots, and callbacks that claim a decision."""
        yield from (part for part in self.components() if not isinstance(part, Callback) or claims_of(part))

    def example_inputs(self) -> Any:
        """Return two examples of the training data as the supernet takes them, shape ``(2, ...)``."""
        batch = next(detached_batches(self.train_loader(), 1, self.seed))
        with attached(self.training_module, self.trainer):
            return example_inputs(self.training_module, batch, self.supernet.model)

    def check(self) -> None:
        """Raise every problem of the run at once.

        Raises:
            ConfigurationError: With all messages, each with its remedy.
        """
        problems = [*self._arguments(), *self._claims(), *hook_problems(self)]
        problems += callback_problems([*self.trainer.callbacks, *self.callbacks])
        for component in self.components():
            if isinstance(component, Component):
                problems += problems_of(component, self)
        if problems:
            raise ConfigurationError(problems)

    def _arguments(self) -> Iterable[str]:
        if self.step_every not in STEP_EVERY:
            yield (
                f"Argument `step_every` is expected to be one of {STEP_EVERY}, but got {self.step_every!r}. "
                "Use 'batch' for one optimizer step a batch, 'subnet' for one a draw."
            )
        if self.gradient_clip_algorithm not in CLIP_ALGORITHMS:
            yield (
                f"Argument `gradient_clip_algorithm` is expected to be one of {CLIP_ALGORITHMS}, but got "
                f"{self.gradient_clip_algorithm!r}. Use 'norm' for the global norm, 'value' for each element."
            )
        if self.gradient_clip_val is not None and not self.gradient_clip_val > 0:
            yield (
                f"Argument `gradient_clip_val` is expected to be a positive number or None, but got "
                f"{self.gradient_clip_val!r}. Use None to switch clipping off."
            )

    def _claims(self) -> Iterable[str]:
        owners: dict[str, list[str]] = {}
        for component in self.components():
            yield from claim_problems(component)
            for claim in claims_of(component):
                owners.setdefault(claim, []).append(type(component).__name__)
        if self.schedulers:
            names = ", ".join(type(scheduler).__name__ for scheduler in self.schedulers)
            owners.setdefault("lr", []).append(f"the evaluator's scheduler ({names})")
        for claim, names_of in owners.items():
            if len(names_of) > 1:
                yield (
                    f"Decision `{claim}` is expected to have one owner, but got {len(names_of)}: "
                    f"{', '.join(names_of)}. Keep one of them."
                )
