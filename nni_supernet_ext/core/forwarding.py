"""Forward the Lightning hooks that NNI's one-shot module does not forward to the user's module."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.core.hooks import CheckpointHooks, DataHooks, ModelHooks
from pytorch_lightning.utilities.model_helpers import is_overridden

_OWN = frozenset({"configure_gradient_clipping", "optimizer_step", "optimizer_zero_grad", "lr_scheduler_step"})
_EXTRA = ("test_step", "predict_step")


def _hook_names() -> list[str]:
    names = [
        name
        for mixin in (ModelHooks, DataHooks, CheckpointHooks)
        for name, value in vars(mixin).items()
        if callable(value) and not name.startswith("_")
    ]
    return [name for name in (*names, *_EXTRA) if name not in _OWN]


def forward_hooks(outer: pl.LightningModule, inner: pl.LightningModule) -> list[str]:
    """Make ``outer`` run the hooks that ``inner`` overrides and ``outer``'s class leaves alone.

    Hooks that ``outer``'s class defines itself are expected to call the inner one. Hooks that the inner
    module does not override are left alone, so they cost nothing.

    Args:
        outer: The module that the trainer sees.
        inner: The evaluator's module.

    Returns:
        Names of the hooks forwarded.

    Example:
        A module with its own ``on_after_batch_transfer`` (augmentation on the device) keeps it when a
        strategy wraps it::

            forward_hooks(supernet_module, evaluator.module)
    """
    forwarded = []
    for name in _hook_names():
        untouched = getattr(type(outer), name, None) is getattr(pl.LightningModule, name, None)
        if untouched and is_overridden(name, inner, parent=pl.LightningModule):
            setattr(outer, name, getattr(inner, name))
            forwarded.append(name)
    return forwarded
