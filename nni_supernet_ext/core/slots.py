"""The slots of a training step: one owner for each decision, with a neutral default elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from nni_supernet_ext.core.component import Component
from nni_supernet_ext.core.draw import Draw, Sample

if TYPE_CHECKING:
    from nni_supernet_ext.core.state import StepState
    from nni_supernet_ext.core.supernet import Supernet


class PathSampler(Component):
    """Decide which subnets a step trains, and how many.

    Subclasses implement :meth:`draws`. All randomness must come from the generator passed in: it is seeded,
    equal on all ranks and saved in the checkpoint.

    Attributes:
        draws_per_step: How many draws :meth:`draws` returns, or None where it varies.
        shared_choices: Labels on which all draws of a step agree.
        roles: Roles of a step's draws in their order, or None where unknown before training.

    Example:
        A sampler that always trains the same subnet::

            class Constant(PathSampler):
                draws_per_step = 1
                def __init__(self, sample): self.sample = sample
                def draws(self, rng, state): return [Draw(self.sample)]
    """

    draws_per_step: int | None = 1
    shared_choices: Collection[str] = ()
    roles: tuple[str, ...] | None = None

    def draws(self, rng: np.random.Generator, state: StepState) -> Sequence[Draw]:
        """Return the draws of the coming step.

        Args:
            rng: The only allowed source of randomness.
            state: Where the training stands (``iteration``, ``epoch``, ``total_iterations``).

        Returns:
            At least one draw, trained in this order.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement `draws`.")


class DataSampler(Component):
    """Decide which examples a step sees, by rebuilding the user's training loader.

    Example:
        A sampler that trains on every other example:

        >>> from torch.utils.data import DataLoader, Subset
        >>> from nni_supernet_ext.testing import toy_evaluator
        >>> class EveryOther(DataSampler):
        ...     def wrap(self, loader):
        ...         half = Subset(loader.dataset, range(0, len(loader.dataset), 2))
        ...         return DataLoader(half, loader.batch_size, shuffle=True, generator=loader.generator)
        >>> loader = toy_evaluator().train_dataloaders
        >>> len(loader), len(EveryOther().wrap(loader))
        (4, 2)
    """

    def wrap(self, loader: Any) -> Any:
        """Return the loader to train from.

        Args:
            loader: The evaluator's training loader (any that Lightning takes).

        Returns:
            The loader to iterate instead.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement `wrap`.")


class WeightStore(Component):
    """Decide which copy of the weights a subnet uses.

    Example:
        A store that shares all weights and counts how often each candidate is used:

        >>> from collections import Counter
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> class Counted(WeightStore):
        ...     def __init__(self):
        ...         self.used = Counter()
        ...     def activate(self, supernet, sample):
        ...         supernet.activate(sample)
        ...         self.used[sample['op']] += 1
        >>> supernet, store = toy_supernet(), Counted()
        >>> store.activate(supernet, {'op': 'skip', 'width': 8})
        >>> supernet.active['width'], store.used
        (8, Counter({'skip': 1}))
    """

    def activate(self, supernet: Supernet, sample: Sample) -> None:
        """Make the supernet compute a subnet with the copy of the weights that belongs to it."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `activate`.")

    def fresh_optimizer_state(self) -> MutableMapping[Tensor, dict[str, Any]]:
        """Return an empty optimizer state, for who keeps several of them."""
        return defaultdict(dict)

    def digest(self, supernet: Supernet) -> str:
        """Return a text that differs for other weights, so that stored evaluations are not mixed up.

        Args:
            supernet: The supernet whose weights the store chooses from.

        Returns:
            The text; empty (default) where the store cannot tell: then a journal does not notice other weights.
        """
        return ""


class Objective(Component):
    """Decide the loss of one draw.

    Example:
        The task's own loss, doubled for the largest subnet::

            class Doubled(Objective):
                def loss(self, draw, state):
                    loss = state.task_loss()
                    return 2 * loss if draw.role == 'largest' else loss
    """

    def loss(self, draw: Draw, state: StepState) -> Tensor:
        """Return the loss of one draw.

        Args:
            draw: The active draw.
            state: The step: ``state.task_loss()`` runs the evaluator's own training step on the batch,
                ``state.batch`` is the batch.

        Returns:
            Scalar loss to run backward from; the draw's weight is applied afterwards.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement `loss`.")
