"""What a training step and an objective may return as a loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nni_supernet_ext.errors import ConfigurationError


def checked_loss(loss: Any, source: str, remedy: str) -> Tensor:
    """Return a loss if it is a scalar tensor; looks at no value, so it waits for no device.

    Args:
        loss: What came.
        source: Where it came from.
        remedy: What to do, as a sentence.

    Raises:
        ConfigurationError: It is no scalar tensor.
    """
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss
    given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
    raise ConfigurationError(
        f"{source} is expected to return a loss, a tensor of one number, but got {given}. {remedy}"
    )
