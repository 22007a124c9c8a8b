"""Trainability of the subnets that a training draws."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from nni_supernet_ext._integers import integer_problems
from nni_supernet_ext.callbacks._epoch_summary import EpochSummary
from nni_supernet_ext.core.batches import to_device
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.loaders import detached_batches
from nni_supernet_ext.core.model_arguments import Arguments, calling, model_arguments
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.errors import DataError
from nni_supernet_ext.functional.batch_norm import preserved_batch_norm
from nni_supernet_ext.functional.trainability import Trainability, neural_tangent_kernel, trainability


class PathTrainability(EpochSummary):
    """Measure, after each epoch, how easily the subnets train that it drew last.

    The neural tangent kernel of each subnet is computed with the supernet's weights on the same few training
    examples, which the model is given as the evaluator's steps give them. Compare the values of two path samplers
    to see which of them draws more trainable subnets. Gradients, BN statistics and random state are left alone.
    Logged as ``trainability_trace`` and ``trainability_condition`` (geometric mean over the subnets).

    Args:
        n_paths: Subnets measured after each epoch: the last ones drawn. Default 8.
        n_examples: Examples in the kernel. Default 8. Memory: as many gradients of the weights.

    Attributes:
        history: For each finished epoch, the measured subnets' values.

    Raises:
        ConfigurationError: A number that is not a positive integer.
        DataError: No output of the model has a row for each example.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(callbacks=[PathTrainability(n_paths=4)])

    Reference:
        Lu et al., "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", CVPR 2023, section 5.2.

    Deviations:
        Trace and condition number of the kernel stand for trainability; which of its measures the paper plots was
        not checked against its code.
    """

    def __init__(self, n_paths: int = 8, n_examples: int = 8) -> None:
        self.n_paths = n_paths
        self.n_examples = n_examples
        self.history: list[list[Trainability]] = []
        self._paths: list[Sample] = []
        self._inputs: Any = None

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse numbers that are no positive integers."""
        yield from integer_problems("Use 8, the default.", n_paths=self.n_paths)
        yield from integer_problems("Use 8, the default.", least=2, n_examples=self.n_examples)

    def prepare(self, plan: Plan) -> None:
        """Start without any measurement."""
        self._plan, self.history, self._paths, self._inputs = plan, [], [], None

    def on_draws(self, state: StepState) -> None:
        """Note the subnets drawn last."""
        self._paths = [*self._paths, *(draw.sample for draw in state.draws)][-self.n_paths :]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Measure after the epoch's last batch: validation, where the values are logged, has no gradients."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._measure(pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure where the epoch ended early, and log where there was no validation."""
        if self._paths:
            self._measure(pl_module)
        super().on_train_epoch_end(trainer, pl_module)

    def _measure(self, pl_module: Any) -> None:
        supernet, weights = self._plan.supernet, self._plan.weights
        arguments, count = self._examples(pl_module)
        active = supernet.active
        parameters = [p for p in supernet.model.parameters() if p.requires_grad]
        values = []
        call = calling(supernet.model)
        with isolate_rng(), preserved_batch_norm(supernet.model):
            for sample in self._paths:
                weights.activate(supernet, sample)
                values.append(
                    trainability(
                        neural_tangent_kernel(lambda given: _summed(call(given), count), parameters, arguments)
                    )
                )
        if active is not None:
            weights.activate(supernet, active)
        self.history.append(values)
        self._paths = []

    def _summary(self, pl_module: Any) -> dict[str, float]:
        values = self.history[-1] if self.history else []
        if not values:
            return {}
        return {
            "trainability_trace": sum(v.trace for v in values) / len(values),
            "trainability_condition": _geometric_mean([v.condition for v in values]),
        }

    def checkpoint_state(self) -> dict[str, Any]:
        """Return the values so far."""
        return {"history": [[[v.trace, v.condition] for v in epoch] for epoch in self.history]}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Take over the values so far."""
        self.history = [[Trainability(*pair) for pair in epoch] for epoch in state["history"]]

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Free the examples."""
        self._inputs = None

    def _examples(self, pl_module: Any) -> tuple[Arguments, int]:
        """Return what the steps call the model with, for the first examples of a batch, and how many they are."""
        if self._inputs is None:
            module, model = self._plan.training_module, self._plan.supernet.model
            batch = next(detached_batches(self._plan.train_loader(), 1, self._plan.seed))
            arguments = model_arguments(module, to_device(module, batch, pl_module.device), model)
            size = next((len(t) for t in _tensors(arguments) if t.dim() > 0), 0)
            count = min(size, self.n_examples)
            chosen = apply_to_collection(arguments, Tensor, lambda t: t[:count] if _is_of(t, size) else t)
            self._inputs = chosen, count
        return self._inputs


def _tensors(collection: Any) -> list[Tensor]:
    """List the tensors in nested tuples, lists, dictionaries and data classes."""
    tensors: list[Tensor] = []
    apply_to_collection(collection, Tensor, tensors.append)
    return tensors


def _is_of(tensor: Tensor, examples: int) -> bool:
    """Tell whether a tensor has a row for each example."""
    return tensor.dim() > 0 and len(tensor) == examples


def _summed(output: Any, examples: int) -> Tensor:
    """Return the sum of each example's outputs, over all tensors that hold some, shape ``(examples, 1)``."""
    tensors = _tensors(output)
    rows = [t.reshape(examples, -1).sum(1) for t in tensors if _is_of(t, examples) and t.is_floating_point()]
    if not rows:
        raise DataError(
            f"The model's output is expected to hold a tensor with a row for each of {examples} examples, but got "
            f"the shapes {[tuple(t.shape) for t in tensors]}. Leave PathTrainability out."
        )
    return torch.stack(rows).sum(0).unsqueeze(1)


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))
