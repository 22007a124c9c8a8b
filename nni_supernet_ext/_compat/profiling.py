"""Keep NNI's profiler from ruining the model it fails on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

__all__ = ["clean_profiling"]


@contextlib.contextmanager
def clean_profiling(model: nn.Module) -> Iterator[None]:
    """Take off the hooks that NNI's profiler leaves on a model when profiling fails.

    With them every later forward pass is slower, and on some models it dies with "'Tensor' object has no
    attribute 'real_shape'". Hooks that were there before stay.

    Args:
        model: The model that is profiled inside the block.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> with clean_profiling(model):
        ...     _ = model.register_forward_hook(lambda *_: None)
        >>> len(model._forward_hooks)
        0
    """
    from nni.nas.profiler.pytorch.utils import shape

    tables = [hooks for m in model.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks)]
    before = [set(hooks) for hooks in tables]
    names = list(shape._current_module_names)
    try:
        yield
    finally:
        for hooks, known in zip(tables, before, strict=True):
            for key in set(hooks) - known:
                del hooks[key]
        shape._current_module_names[:] = names
