"""Data importance sampling: draw examples in proportion to a bound of their gradient norm (the DA of PA&DA)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
import torch
from nni.nas.evaluator.pytorch import RegressionModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from nni_supernet_ext._compat.lightning_loops import restart_train_iterator
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.probes import recorded_outputs
from nni_supernet_ext.core.slots import DataSampler
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.data._batch_parts import default_labels, default_logits, given_tensor
from nni_supernet_ext.data._example_norms import ExampleNorms
from nni_supernet_ext.data._rebuilt_loader import known_loader_problems, loader_problems, rebuilt_loader
from nni_supernet_ext.data._recorded_order import Indices, RecordedOrder
from nni_supernet_ext.errors import CheckpointError, ConfigurationError, DataError, TrainingDivergedError
from nni_supernet_ext.functional._targets import require_distributions
from nni_supernet_ext.functional.importance import Schedule, gradient_norm_bound, resolve_schedule

_STREAM = 104_729
"""Keeps the data's random numbers apart from others of the same seed."""


class ImportanceDataSampler(DataSampler):
    """Draw examples in proportion to how strongly they would move the weights.

    The training forward itself gives each example's bound ``||softmax(logits) - onehot(label)||``; an epoch's
    bounds, averaged over an example's repeats, become the next epoch's distribution
    ``tau * bound / sum(bounds) + (1 - tau) / N``, from which examples are drawn with replacement. While ``tau``
    is 0 or nothing was measured, the user's own sampler decides. The loader is rebuilt around another sampler;
    dataset, batch size, workers, pinning, collation and ``drop_last`` stay. Of a sampler of the user's own kind the
    number of examples, those that it never hands out, and ``set_epoch`` stay; its order gives way, and where it
    decides frequencies it is refused.

    Args:
        tau: Share of the bounds: ``'linear'`` (default; 0 at the start, 1 at the end), ``'linear_down'``, a
            constant below 1, or a function of the progress (0 to 1).
        granularity: ``'sample'`` (default), or ``'class'``: classes are drawn by their mean bound, and examples
            uniformly within their class.
        unseen: ``'keep'`` (default): an example that an epoch did not draw keeps its bound; ``'zero'``: it falls
            to the uniform share.
        logits: Function from the model's output to class scores, shape ``(N, C)``. Default: the output, the first
            of a tuple, or ``'logits'`` of a dict.
        labels: Function from a batch to labels: class indices, shape ``(N,)``, with -100 for examples that the loss
            ignores, or class probabilities, shape ``(N, C)``. Default: the second part of a tuple, or ``'labels'``,
            ``'label'``, ``'targets'``, ``'target'`` or ``'y'`` of a dict.

    Raises:
        ConfigurationError: A loader that cannot be rebuilt without loss, or bad arguments.
        DataError: No labels, labels of another loss than a softmax cross-entropy, outputs that are not one row per
            example, a dataset that changes its length, or a sampler of the user's own kind that hands out some
            examples more often than others.
        CheckpointError: A checkpoint of another dataset length.
        TrainingDivergedError: No bound of an epoch was finite.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(data=ImportanceDataSampler(tau='linear'))

    Reference:
        Lu et al., "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", CVPR 2023, Eq. 13 and section 3.4.

    Deviations:
        Soft labels replace the one-hot vector; a mixed example counts for the index it was loaded for. The authors'
        script: ``unseen='zero'``, the running pairwise mean over repeats, and a ``tau`` one epoch behind.
    """

    def __init__(
        self,
        tau: Schedule = "linear",
        granularity: Literal["sample", "class"] = "sample",
        unseen: Literal["keep", "zero"] = "keep",
        logits: Callable[[Any], Tensor] | None = None,
        labels: Callable[[Any], Tensor] | None = None,
    ) -> None:
        self.tau: Schedule = tau
        self.granularity = granularity
        self.unseen = unseen
        self.logits = logits if logits is not None else default_logits
        self.labels = labels if labels is not None else default_labels
        self._plan: Plan | None = None
        self._order: RecordedOrder | None = None
        self._recording = ExitStack()
        self._outputs: list[Any] = []
        self._waiting: list[tuple[Indices, Tensor, Tensor | None]] = []
        self._soft: Tensor | None = None

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse bad arguments, and loaders that cannot be rebuilt without loss."""
        allowed = {"granularity": ("sample", "class"), "unseen": ("keep", "zero")}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                yield (
                    f"Argument `{name}` is expected to be one of {values}, but got {getattr(self, name)!r}. Use "
                    f"{values[0]!r}, the default."
                )
        for name, given in (("logits", "the model's output"), ("labels", "the batch")):
            if not callable(getattr(self, name)):
                yield (
                    f"Argument `{name}` is expected to be a function of {given} or None, but got "
                    f"{getattr(self, name)!r}. Use None for where they usually are."
                )
        try:
            resolve_schedule(self.tau, "tau")
        except ConfigurationError as error:
            yield from error.problems
        found = (self.logits, self.labels) == (default_logits, default_labels)
        if found and isinstance(plan.training_module, RegressionModule):
            yield (
                "The evaluator is expected to classify, but got NNI's Regression, whose loss has no class scores "
                "to bound a gradient norm by. Leave the data slot empty, or give `logits` and `labels` that do."
            )
        yield from known_loader_problems(plan)

    def wrap(self, loader: Any) -> DataLoader[Any]:
        """Rebuild the user's loader around a sampler that draws by importance and records what it hands out."""
        problems = list(loader_problems(loader))
        if problems:
            raise ConfigurationError(problems)
        previous = self._order
        self._order = RecordedOrder(loader.sampler, loader.dataset, self._draw)
        self._batch_size = int(loader.batch_size)
        if self._plan is not None and previous is not None:  # a run's loader is loaded again
            self._order.follow(previous)
        return rebuilt_loader(loader, self._order)

    def prepare(self, plan: Plan) -> None:
        """Start without any measurement."""
        if plan.total_iterations is None and not isinstance(self.tau, int | float):
            raise ConfigurationError(
                "The trainer is expected to have a known number of iterations for ImportanceDataSampler, but got "
                "none. Set `max_epochs` and use a loader with a length, set `max_steps`, or give a constant `tau`."
            )
        assert self._order is not None
        self._plan = plan
        self._schedule = resolve_schedule(self.tau, "tau")
        self._norms = ExampleNorms(self._order.size, self.granularity == "class", self.unseen == "keep")
        self._iteration = 0
        self._waiting, self._soft = [], None

    def on_draws(self, state: StepState) -> None:
        """Note the step's examples and record what the model returns for them."""
        assert self._order is not None and self._plan is not None
        self._current = self._order.take(self._batch_size)
        self._iteration = state.iteration + 1
        self._recording.close()
        self._outputs = self._recording.enter_context(recorded_outputs(self._plan.supernet.model))

    def on_after_draw(self, state: StepState) -> None:
        """Bound the gradient norms of the draw's examples, on the device."""
        if not self._outputs:
            raise DataError(
                "The evaluator's training step is expected to run the model on the batch, but it did not. Leave "
                "the data slot empty for evaluators with a model of their own."
            )
        logits = given_tensor(self.logits(self._outputs[-1]), "logits").detach()
        labels = given_tensor(self.labels(state.batch), "labels")
        self._outputs.clear()
        if len(logits) != len(self._current):
            raise DataError(
                f"The model's output is expected to have one row for each of the batch's {len(self._current)} "
                f"examples, but got {len(logits)}. Give `logits`, a function that picks one row per example."
            )
        bounds, classes = gradient_norm_bound(logits, labels), None  # which refuses labels that do not fit
        self._soft = labels.detach() if labels.is_floating_point() else None
        if self.granularity == "class":
            classes = labels.argmax(1) if labels.is_floating_point() else labels.detach().clone()
        self._waiting.append((self._current, bounds, classes))
        if state.index == len(state.draws) - 1:
            self._recording.close()

    def checkpoint_state(self) -> dict[str, Any]:
        """Return the examples' bounds, of all ranks."""
        self._gather()
        assert self._order is not None
        support = torch.from_numpy(self._order.support.copy())
        kept = {"iteration": self._iteration, "support": support, "uneven": self._order.uneven}
        return {**self._norms.state(), **kept}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Take over the examples' bounds."""
        assert self._order is not None and self._plan is not None
        if len(state["sums"]) != self._order.size:
            raise CheckpointError(
                f"The checkpoint is expected to be of a dataset with {self._order.size} examples, but got one of "
                f"{len(state['sums'])}. Resume with the same dataset, or use another `checkpoint_dir` to "
                "start afresh."
            )
        self._norms.restore(state)
        self._iteration = state["iteration"]
        self._order.support, self._order.uneven = state["support"].cpu().numpy(), state["uneven"]
        if self._plan.trainer.world_size > 1:
            # The epoch's order may have been read ahead already, from before the state was known.
            restart_train_iterator(self._plan.trainer)

    def finish(self) -> None:
        """Stop recording."""
        self._recording.close()
        self._waiting, self._soft = [], None
        self._plan = None

    def _draw(self, count: int) -> Indices | None:
        """Draw the indices of an epoch, equal on all ranks; None while the user's sampler decides."""
        if self._plan is None or self._order is None:
            return None
        self._gather()
        self._norms.close()
        tau = self._schedule(self._iteration / (self._plan.total_iterations or max(self._iteration, 1)))
        if tau == 0.0 or not self._norms.measured:
            return None
        support = self._order.support
        cumulative = np.cumsum(self._norms.distribution(support, tau))
        # By seed and epoch alone: a resumed run needs no state to draw the same.
        rng = np.random.default_rng([self._plan.seed, _STREAM, self._plan.trainer.current_epoch])
        places = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
        return support[np.minimum(places, len(support) - 1)]

    def _gather(self) -> None:
        """Move all measurements off the device and average them over ranks."""
        if self._plan is None:
            return
        if self._soft is not None:  # on an accelerator the only look at them: here everything waits for it anyway
            require_distributions(self._soft)
        self._soft = None
        waiting, self._waiting = self._waiting, []
        indices = np.concatenate([part for part, _, _ in waiting]) if waiting else np.zeros(0, dtype=np.int64)
        bounds = torch.cat([b for _, b, _ in waiting]).double().cpu().numpy() if waiting else np.zeros(0)
        classes = None
        if waiting and self.granularity == "class":
            classes = torch.cat([c for _, _, c in waiting if c is not None]).cpu().numpy()
        finite = np.isfinite(bounds)
        if len(bounds) and not finite.any():
            raise TrainingDivergedError(
                "The outputs of the model are expected to be finite, but got none that is since the last epoch. "
                "Lower the learning rate, clip gradients with `gradient_clip_val`, or check the data."
            )
        if classes is not None:
            classes = classes[finite]
        self._norms.add(indices[finite], bounds[finite], classes, self._over_ranks)

    def _over_ranks(self, values: NDArray[Any], operation: str) -> NDArray[Any]:
        assert self._plan is not None
        strategy = self._plan.trainer.strategy
        if self._plan.trainer.world_size == 1:
            return values
        shared = torch.from_numpy(values).to(strategy.root_device)
        return strategy.reduce(shared, reduce_op=operation).cpu().numpy()
