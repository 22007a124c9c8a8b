"""Define the torchvision operators whose native library could not be loaded.

Loaded by its path while torchvision is being imported, so it imports nothing of
this package.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import NoReturn

import torch

# Exactly the operators that torchvision/_meta_registrations.py names without asking whether they exist.
SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def provide_missing_operators() -> bool:
    """Define the operators torchvision cannot be imported without, where its own are missing.

    Does nothing where torchvision's native library was loaded.

    Returns:
        Whether operators had to be defined.
    """
    extension = sys.modules["torchvision.extension"]
    if extension._has_ops():
        return False
    # torchvision.ops modules copy this name when they are imported, which happens after this call.
    extension._assert_has_ops = refuse  # type: ignore[attr-defined]
    for name, schema in SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema)
            torch.library.impl(f"torchvision::{name}", "default")(refuse)
    return True


def refuse(*_args: object, **_kwargs: object) -> NoReturn:
    """Raise the error that says which build to install.

    Raises:
        RuntimeError: Always.
    """
    kind = torch.__version__.partition("+")[2] or "the same build as torch"
    raise RuntimeError(
        f"The compiled operators of torchvision {metadata.version('torchvision')} cannot be loaded by torch "
        f"{torch.__version__}: the two are builds of different kinds (for example CUDA and CPU). "
        f"Install the torchvision build that belongs to this torch ({kind}), or use only datasets, "
        "transforms and models, which work without compiled operators."
    )
