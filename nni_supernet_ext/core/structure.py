"""Notice that a supernet's modules have changed since somebody collected them."""

from __future__ import annotations

from torch import nn

_ATTRIBUTE = "_supernet_structure"


def structure_of(model: nn.Module) -> int:
    """Return a number that changes when layers of the model are exchanged or gain copies."""
    return int(model.__dict__.get(_ATTRIBUTE, 0))


def note_new_structure(model: nn.Module) -> None:
    """Tell every supernet made from the model that it must look at its modules again."""
    model.__dict__[_ATTRIBUTE] = structure_of(model) + 1
