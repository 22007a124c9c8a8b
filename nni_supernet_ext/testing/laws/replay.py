"""A path sampler that repeats the draws of an earlier training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nni_supernet_ext.core.draw import Draw, Sample
from nni_supernet_ext.core.slots import PathSampler
from nni_supernet_ext.core.state import StepState


class Replay(PathSampler):
    """Draw at every step what another training drew there, whatever the seed.

    Args:
        samples: For every step of that training the only sample drawn.

    Example:
        >>> state = StepState()
        >>> Replay([[{'op': 'skip', 'width': 8}]]).draws(np.random.default_rng(0), state)[0].sample
        {'op': 'skip', 'width': 8}
    """

    draws_per_step = 1

    def __init__(self, samples: Sequence[Sequence[Sample]]) -> None:
        self.samples = samples

    def draws(self, rng: np.random.Generator, state: StepState) -> list[Draw]:
        """Return the step's recorded draw; ``rng`` is left alone."""
        # Copies: who changes a sample changes the training, not the record of it.
        return [Draw(dict(sample)) for sample in self.samples[state.iteration]]
