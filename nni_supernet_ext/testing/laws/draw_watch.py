"""Whether the draws of a step stay what the path sampler returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nni_supernet_ext._compat.samples import plain_sample
from nni_supernet_ext.core.draw import Draw
from nni_supernet_ext.core.slots import PathSampler
from nni_supernet_ext.core.state import StepState

Record = tuple[dict[str, Any], str, float]


class DrawWatch:
    """Copy what a path sampler returns at every step, and compare the step's draws with it later.

    Attributes:
        change: What the draws of the first step that differs had become, in words; empty where none does.
    """

    def __init__(self) -> None:
        self.change = ""
        self._returned: list[Record] = []
        self._paths: PathSampler | None = None
        self._own: dict[str, Any] = {}

    def attach(self, paths: PathSampler) -> None:
        """Copy what the sampler returns from now on."""
        self._paths, inner = paths, paths.draws
        self._own = {"draws": vars(paths)["draws"]} if "draws" in vars(paths) else {}

        def draws(rng: np.random.Generator, state: StepState) -> Any:
            found = inner(rng, state)
            # Anything else is refused by the step itself.
            drawn = found if isinstance(found, Sequence) else ()
            self._returned = [_record(d) for d in drawn if isinstance(d, Draw) and isinstance(d.sample, Mapping)]
            return found

        vars(paths)["draws"] = draws

    def detach(self) -> None:
        """Give the sampler its method back; nothing where it has it."""
        if self._paths is not None:
            vars(self._paths).pop("draws", None)
            vars(self._paths).update(self._own)
            self._paths = None

    def compare(self, state: StepState, hook: str) -> None:
        """Compare the draws of the step in work, once all other parts' ``hook`` has run."""
        now = [_record(draw) for draw in state.draws]
        if not self.change and now != self._returned:
            self.change = f"after `{hook}` {now} in place of {self._returned}"


def _record(draw: Draw) -> Record:
    return plain_sample(draw.sample), draw.role, draw.weight
