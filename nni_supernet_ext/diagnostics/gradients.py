"""The gradient of any subnet on a given batch, without any trace in the supernet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.errors import DataError
from nni_supernet_ext.functional._module_modes import preserved_modes
from nni_supernet_ext.functional.batch_norm import preserved_batch_norm

Loss: TypeAlias = Callable[[nn.Module, Any], Tensor]


def classification_loss(model: nn.Module, batch: Any) -> Tensor:
    """Return the cross entropy of a batch of inputs and labels."""
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels)


class SubnetGradients:
    """Compute gradients of a supernet's subnets on batches of your choice.

    Training's own gradients, BN statistics, random states, modes and the active subnet are left alone; dropout
    draws the same numbers for every subnet. The supernet runs in training mode, as in a training step.

    Args:
        supernet: The supernet, at any stage of its training.
        loss: Function of the model and a batch. Default: cross entropy of ``(inputs, labels)``.
        activate: How to activate a sample, for a weight store of its own: ``store.activate``. Default: in place.

    Attributes:
        parameters: The supernet's trainable weights, in the order of the gradients.

    Raises:
        DataError: :meth:`of` gets a loss that depends on no weight.

    Example:
        >>> from nni_supernet_ext.testing import toy_data, toy_supernet
        >>> gradients = SubnetGradients(toy_supernet())
        >>> found = gradients.of({'op': 'skip', 'width': 4}, toy_data(8).tensors)
        >>> len(found) == len(gradients.parameters), sum(g is None for g in found)  # of both convolutions of `op`
        (True, 3)
    """

    def __init__(
        self,
        supernet: Supernet,
        loss: Loss = classification_loss,
        activate: Callable[[Supernet, Sample], None] | None = None,
    ) -> None:
        self.supernet = supernet
        self.loss = loss
        self.parameters = [p for p in supernet.model.parameters() if p.requires_grad]
        self._activate = activate or (lambda net, sample: net.activate(sample))

    def of(self, sample: Sample, batch: Any) -> list[Tensor | None]:
        """Return a subnet's gradient.

        Args:
            sample: Architecture.
            batch: What the loss takes, on the supernet's device.

        Returns:
            One gradient for each of `parameters`, None where the subnet does not contain the weight.

        Raises:
            DataError: The loss depends on no weight.
        """
        model, previous = self.supernet.model, self.supernet.active
        try:
            # First activate: a weight store may exchange the BN statistics themselves.
            self._activate(self.supernet, sample)
            with preserved_modes(model), isolate_rng(), preserved_batch_norm(model), torch.enable_grad():
                torch.manual_seed(0)
                if not model.training:
                    model.train()
                value = self.loss(model, batch)
                if not value.requires_grad:
                    raise DataError(
                        "Argument `loss` is expected to depend on the supernet's weights, but got a loss without "
                        "gradient. Return the loss itself, not detached."
                    )
                return list(torch.autograd.grad(value, self.parameters, allow_unused=True))
        finally:
            if previous is not None:
                self._activate(self.supernet, previous)
