"""What is prepared just before which module of another package is executed.

With CPU-only torch and a CUDA build of torchvision, ``import torchvision`` stops at "operator
torchvision::nms does not exist", and so does all that imports it: torchmetrics, hence pytorch_lightning,
hence ``nni.nas``. Processes that NNI starts also repeat its known noise. Loaded by its path, so it imports
nothing of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# The module to be executed -> the file of this folder and its function to call before.
PREPARATIONS = {
    # By its time torchvision.extension has tried to load the native library, and nothing else has used an
    # operator: with a working build there is nothing to do, with a broken one it is not too late.
    "torchvision._meta_registrations": ("torchvision_ops", "provide_missing_operators"),
    "nni": ("noise", "install_noise_filters"),
}


def guarded_spec(
    name: str, path: Sequence[str] | None, load_beside: Callable[[str], ModuleType]
) -> ModuleSpec | None:
    """Return the module's own spec with its preparation put before its execution.

    Args:
        name: Full name of a key of `PREPARATIONS`.
        path: Where the import system looks for it; None for a top-level module.
        load_beside: Loads a file of this folder by its name without extension.

    Returns:
        The spec, or None where the module is not installed.
    """
    spec = PathFinder.find_spec(name, path)
    if spec is None or spec.loader is None:
        return spec
    execute = spec.loader.exec_module

    def exec_module(module: ModuleType) -> None:
        try:
            file, function = PREPARATIONS[name]
            getattr(load_beside(file), function)()
        except Exception:
            pass  # The module then shows its own error, which names the cause better.
        execute(module)

    spec.loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec
