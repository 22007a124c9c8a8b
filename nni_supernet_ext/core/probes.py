"""Look into a forward pass without changing it: record what a model returns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def recorded_outputs(model: nn.Module) -> Iterator[list[Any]]:
    """Record the outputs of a model while the context lasts.

    An evaluator's training step returns only the loss; this shows what the model returned on the way. The
    outputs keep their graph. One hook is put on the model itself and removed on exit, whatever happens.

    Args:
        model: The model whose forward passes to record.

    Yields:
        List that gets the output of each forward pass, in order.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 3)
        >>> with recorded_outputs(model) as outputs:
        ...     _ = model(torch.zeros(4, 2))
        >>> [output.shape for output in outputs], len(model._forward_hooks)
        ([torch.Size([4, 3])], 0)
    """
    outputs: list[Any] = []
    handle = model.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()
