"""Find labels in a batch and class scores in a model's output, where they usually are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nni_supernet_ext.errors import DataError

_LABELS = ("labels", "label", "targets", "target", "y")


def default_labels(batch: Any) -> Tensor:
    """Return the second part of a tuple batch, or the labels of a dict batch.

    Example:
        >>> import torch
        >>> default_labels((torch.zeros(2, 3), torch.tensor([1, 0]))).tolist()
        [1, 0]
    """
    found: Any = None
    if isinstance(batch, (list, tuple)) and len(batch) > 1:
        found = batch[1]
    elif isinstance(batch, Mapping):
        found = next((batch[name] for name in _LABELS if name in batch), None)
    if not isinstance(found, Tensor):
        raise DataError(
            f"The training batch is expected to hold labels, but got {_described(batch)} without a tensor of them. "
            "Give `labels`, a function from the batch to its labels, or leave the data slot empty."
        )
    return found


def default_logits(output: Any) -> Tensor:
    """Return an output tensor, the first part of a tuple, or ``'logits'`` of a dict.

    Example:
        >>> import torch
        >>> default_logits((torch.zeros(2, 3), None)).shape
        torch.Size([2, 3])
    """
    found = output
    if isinstance(output, (list, tuple)) and output:
        found = output[0]
    elif isinstance(output, Mapping):
        found = output.get("logits")
    if not isinstance(found, Tensor):
        raise DataError(
            f"The model's output is expected to hold class scores, but got {_described(output)}. Give `logits`, a "
            "function from the output to scores of shape (N, C)."
        )
    return found


def given_tensor(value: Any, name: str) -> Tensor:
    """Return what a function of the user's returned, where it is a tensor.

    Args:
        value: What it returned.
        name: The argument that the function was given as.

    Example:
        >>> given_tensor([1, 0], 'labels')
        Traceback (most recent call last):
        nni_supernet_ext.errors.DataError: Argument `labels` is expected to return a tensor, but got a list of 2...
    """
    if not isinstance(value, Tensor):
        raise DataError(
            f"Argument `{name}` is expected to return a tensor, but got {_described(value)}. Make one of it in "
            "that function, for instance with `torch.as_tensor`."
        )
    return value


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with {list(value)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
