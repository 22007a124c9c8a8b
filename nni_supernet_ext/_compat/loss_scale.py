"""The factor that half-precision training has on its gradients until they are unscaled."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def loss_scale(trainer: Any) -> Tensor | None:
    """Return the current loss scale as a tensor on the device, without waiting for it.

    The scaler's own ``get_scale`` waits for the device.

    Args:
        trainer: Lightning trainer.

    Returns:
        Scale, shape ``()``, or None where gradients are not scaled.
    """
    scaler = getattr(getattr(trainer, "precision_plugin", None), "scaler", None)
    scale = getattr(scaler, "_scale", None)
    return scale if isinstance(scale, Tensor) else None
