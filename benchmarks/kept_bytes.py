"""How many bytes autograd keeps for backward passes, and how many at once at most."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor


class KeptBytes:
    """Count what is kept for backward passes while the context is open.

    A tensor that is kept twice counts twice, as views of one storage do.

    Attributes:
        now: Bytes kept at present.
        peak: Most bytes kept at once so far.
    """

    def __init__(self) -> None:
        self.now = self.peak = 0

    def __enter__(self) -> KeptBytes:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.value)
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._hooks.__exit__(None, None, None)

    def _pack(self, value: Tensor) -> _Kept:
        kept, size = _Kept(value), value.numel() * value.element_size()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(kept, self._release, size)
        return kept

    def _release(self, size: int) -> None:
        self.now -= size


class _Kept:
    """Hold a tensor until its backward pass is over."""

    def __init__(self, value: Tensor) -> None:
        self.value = value.detach()  # with its graph an output would keep itself alive
