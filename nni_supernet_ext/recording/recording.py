"""What a strategy does while it is recorded; the neutral form records nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import pytorch_lightning as pl

from nni_supernet_ext.core.draw import Sample


class Recording:
    """Receive what a strategy does, from ``with`` to the end of the block.

    Example:
        A recording that keeps the best subnet of a search:

        >>> class Best(Recording):
        ...     best = 0.0
        ...     def subnet(self, sample, metrics):
        ...         if metrics['default'] > self.best:
        ...             self.best, self.sample = metrics['default'], sample
        >>> with Best() as recording:
        ...     recording.subnet({'op': 'conv'}, {'default': 0.5})
        ...     recording.subnet({'op': 'skip'}, {'default': 0.4})
        >>> recording.sample
        {'op': 'conv'}
    """

    def callbacks(self, training: str = "") -> list[pl.Callback]:
        """Return the Lightning callbacks that report a training's epochs.

        Args:
            training: Name of the training where there are several, the same after a resume.
        """
        return []

    def subnet(self, sample: Sample, metrics: Mapping[str, Any]) -> None:
        """Take an evaluated subnet; ``metrics`` hold ``default``."""

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class NoRecording(Recording):
    """Record nothing.

    Example:
        >>> with NoRecording() as recording:
        ...     recording.callbacks()
        []
    """
