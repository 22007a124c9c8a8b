"""What a training must leave as it was on modules, parameters and in torch itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizers

from nni_supernet_ext.testing.laws.module_settings import ModuleSettings

_MODES: dict[str, Callable[[], Any]] = {
    "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
    "gradients switched on": torch.is_grad_enabled,
    "anomaly detection": torch.is_anomaly_enabled,
    "default dtype": torch.get_default_dtype,
    "threads": torch.get_num_threads,
    "float32 matmul precision": torch.get_float32_matmul_precision,
    "cudnn benchmark": lambda: torch.backends.cudnn.benchmark,
    "cudnn deterministic": lambda: torch.backends.cudnn.deterministic,
}


class Conditions:
    """Hooks, methods, settings, frozen parameters and torch's modes at one moment, to be compared later.

    Args:
        roots: Modules to look at, with all inside them.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> before = Conditions([layer])
        >>> _ = layer.register_forward_hook(lambda *_: None)
        >>> list(before.changes([layer]))
        ["hooks on ['Linear._forward_hooks']"]
    """

    def __init__(self, roots: Iterable[nn.Module]) -> None:
        modules, parameters = _inside(roots)
        # The objects are kept, so that no later one can have the identity of one that is gone.
        self._modules, self._methods = modules, _replaced_methods(modules)
        self._hooks = _module_hooks(modules) | _parameter_hooks(parameters) | _torch_hooks()
        self._gradients = {name: (parameter, parameter.requires_grad) for name, parameter in parameters.items()}
        self._settings = ModuleSettings(modules)
        self._modes = {name: mode() for name, mode in _MODES.items()}

    def changes(self, roots: Iterable[nn.Module]) -> Iterator[str]:
        """Yield what is left behind since then, in words."""
        now = Conditions(roots)
        hooked = [name for name, hooks in now._hooks.items() if hooks - self._hooks.get(name, set())]
        if hooked:
            yield f"hooks on {hooked}"
        methods = [name for name, value in now._methods.items() if self._methods.get(name) is not value]
        if methods:
            yield f"methods replaced: {methods}"
        gradients = [name for name, (p, needed) in self._gradients.items() if p.requires_grad != needed]
        if gradients:
            yield f"`requires_grad` changed on {gradients}"
        settings = list(self._settings.changes(now._modules))
        if settings:
            yield f"other attributes on modules: {settings}"
        modes = [name for name, value in now._modes.items() if self._modes[name] != value]
        if modes:
            yield f"torch with other global settings: {modes}"


def optimizer_hooks(optimizer: Optimizer) -> dict[str, set[int]]:
    """Return the hooks of an optimizer: name of the table -> their identities."""
    return _tables(vars(optimizer), type(optimizer).__name__)


def entries(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return a copy of what the parameter groups say beside the parameters."""
    return [
        {
            key: value.clone() if isinstance(value, Tensor) else value
            for key, value in group.items()
            if key != "params"
        }
        for group in optimizer.param_groups
    ]


def changed_entries(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> dict[str, str]:
    """Return what differs among the groups and entries that were there before: name -> value before and now."""
    return {
        key: f"{old[key]} before, {new.get(key)} now"
        for old, new in zip(before, now, strict=False)
        for key in old
        if not same(old[key], new.get(key))
    }


def same(first: Any, second: Any) -> bool:
    """Tell whether two values of an optimizer are equal, tensors or not."""
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return torch.equal(torch.as_tensor(first), torch.as_tensor(second))
    return bool(first == second)


def _inside(roots: Iterable[nn.Module]) -> tuple[dict[str, nn.Module], dict[str, nn.Parameter]]:
    """Return all modules and parameters by name; what lies in two roots has its name from the first."""
    seen: set[nn.Module] = set()
    modules = {
        f"{type(root).__name__}.{name}".rstrip("."): module
        for root in roots
        for name, module in root.named_modules(memo=seen)
    }
    parameters = {
        f"{path}.{name}": parameter
        for path, module in modules.items()
        for name, parameter in module.named_parameters(recurse=False)
    }
    return modules, parameters


def _module_hooks(modules: dict[str, nn.Module]) -> dict[str, set[int]]:
    return {name: hooks for path, module in modules.items() for name, hooks in _tables(vars(module), path).items()}


def _parameter_hooks(parameters: dict[str, nn.Parameter]) -> dict[str, set[int]]:
    names = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return {
        name: hooks
        for path, parameter in parameters.items()
        for name, hooks in _tables({key: getattr(parameter, key, None) for key in names}, path).items()
    }


def _torch_hooks() -> dict[str, set[int]]:
    return _tables(vars(torch_modules), "torch.nn") | _tables(vars(torch_optimizers), "torch.optim")


def _tables(attributes: dict[str, Any], path: str) -> dict[str, set[int]]:
    """Return the tables of hooks among attributes that hold any: name -> identities of the hooks."""
    return {
        f"{path}.{name}": {id(hook) for hook in table.values()}
        for name, table in attributes.items()
        if name.endswith("_hooks") and isinstance(table, dict) and table
    }


def _replaced_methods(modules: dict[str, nn.Module]) -> dict[str, Any]:
    """Return what modules themselves hold under the name of a method of their class."""
    return {
        f"{path}.{name}": value
        for path, module in modules.items()
        for name, value in vars(module).items()
        if callable(getattr(type(module), name, None))
    }
