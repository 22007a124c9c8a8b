"""What is stored of a network: its tensors, and what its modules keep beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy


def stored_bytes(value: Any) -> bytes:
    """Return the content of one entry of a state dict, equal for equal entries.

    Args:
        value: A tensor, or state that a module keeps beside its tensors.
    """
    if not isinstance(value, Tensor):
        return repr(value).encode()
    return value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


def stored_shapes(state: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the shape of every tensor of a state dict that has one, by names that are plain texts.

    Args:
        state: State dict; lazy tensors, and what are no tensors, are left out.
    """
    return {
        str.__str__(name): list(value.shape)
        for name, value in state.items()
        if isinstance(value, Tensor) and not is_lazy(value)
    }
