"""What modules hold beside their weights: settings such as the momentum of batch normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

_PLAIN = (bool, int, float, complex, str, type(None))


class ModuleSettings:
    """The public attributes of modules at one moment, to be compared later.

    Args:
        modules: Name -> module.

    Example:
        >>> norm = nn.BatchNorm2d(2)
        >>> before = ModuleSettings({'norm': norm})
        >>> norm.momentum = 0.5
        >>> list(before.changes({'norm': norm}))
        ['norm.momentum']
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._before = {name: (module, type(module), _attributes(module)) for name, module in modules.items()}

    def changes(self, modules: Mapping[str, nn.Module]) -> Iterator[str]:
        """Yield what was set, added or removed on the modules that are still there, and of the same class."""
        for name, (module, kind, before) in self._before.items():
            if modules.get(name) is not module or type(module) is not kind:
                continue
            now = _attributes(module)
            for attribute in {**before, **now}:
                if (
                    attribute not in before
                    or attribute not in now
                    or (_is_plain(before[attribute]) and before[attribute] != now[attribute])
                ):
                    yield f"{name}.{attribute}"


def held_tensors(model: nn.Module) -> set[str]:
    """Return the names of all parameters and buffers, those that are in no ``state_dict`` too.

    Example:
        >>> sorted(held_tensors(nn.Linear(1, 1)))
        ['bias', 'weight']
    """
    tensors: list[tuple[str, Tensor]] = [*model.named_parameters(), *model.named_buffers()]
    return {name for name, _ in tensors}


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return what is no method and no hook."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and not callable(getattr(type(module), name, None))
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN)
