"""Turn what a caller has (lists, arrays, tensors) into checked one-dimensional arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from nni_supernet_ext.errors import ConfigurationError, DataError

FloatVector: TypeAlias = NDArray[np.float64]
VectorLike: TypeAlias = Sequence[float] | NDArray[Any] | torch.Tensor


def as_vector(name: str, values: VectorLike) -> FloatVector:
    """Return ``values`` as float64, shape (n,), and raise if they are not one-dimensional or contain NaN."""
    if isinstance(values, torch.Tensor):
        values = values.detach().to(device="cpu", dtype=torch.float64).numpy()
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise ConfigurationError(
            f"Argument `{name}` is expected to be one-dimensional, but got shape {vector.shape}. "
            "Give one number per subnet."
        )
    missing = int(np.isnan(vector).sum())
    if missing:
        raise DataError(
            f"Argument `{name}` is expected to be free of NaN, but got {missing} NaN among {vector.size} "
            "values. Remove those subnets from both arguments."
        )
    return vector


def as_pair(
    names: tuple[str, str], first: VectorLike, second: VectorLike, at_least: int
) -> tuple[FloatVector, FloatVector]:
    """Return two vectors of the same length, and raise if the lengths differ or are below ``at_least``."""
    left, right = as_vector(names[0], first), as_vector(names[1], second)
    if left.size != right.size:
        raise ConfigurationError(
            f"Arguments `{names[0]}` and `{names[1]}` are expected to have the same length, but got "
            f"{left.size} and {right.size}. Give both for the same subnets in the same order."
        )
    if left.size < at_least:
        raise ConfigurationError(
            f"Arguments `{names[0]}` and `{names[1]}` are expected to have at least {at_least} items, but "
            f"got {left.size}. Evaluate more subnets."
        )
    return left, right


def as_subnets(predicted: VectorLike, actual: VectorLike) -> tuple[FloatVector, FloatVector]:
    """Return predicted and true accuracies of at least two subnets, checked as :func:`as_pair` does."""
    return as_pair(("predicted", "actual"), predicted, actual, at_least=2)


def is_constant(vector: FloatVector) -> bool:
    """Tell whether all numbers are equal."""
    return bool((vector == vector[0]).all())
