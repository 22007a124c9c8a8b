"""Targets of a cross-entropy that are class probabilities."""

from __future__ import annotations

from torch import Tensor

from nni_supernet_ext.errors import DataError

_ROUNDING = 0.01
"""How far the sum of probabilities in half precision may be from 1."""


def require_distributions(targets: Tensor) -> None:
    """Refuse rows that are no class probabilities, as several labels at once or a regression's values are none.

    Args:
        targets: Shape ``(N, C)``, floating. On an accelerator this waits for it.

    Raises:
        DataError: A row does not sum to 1, or holds a negative number.

    Example:
        >>> import torch
        >>> require_distributions(torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
    """
    values = targets.detach().float().cpu().numpy()
    sums = values.sum(1)
    wrong = ~(abs(sums - 1.0) <= _ROUNDING) | (values.min(1, initial=0.0) < -_ROUNDING)  # NaN too
    if wrong.any():
        raise DataError(
            "Argument `targets` is expected to hold class probabilities where it has the shape of `logits`, "
            "so that no entry is negative and each row sums to 1, but got "
            f"{str(values[wrong][0].tolist())[:60]}. Give the labels of a softmax cross-entropy; for other losses, "
            "such as a regression's or that of several labels at once, there is no such bound: leave the data slot "
            "empty."
        )
