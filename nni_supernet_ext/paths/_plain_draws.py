"""What samplers share that draw nothing but subnets like any other: no largest one, no teacher."""

from __future__ import annotations

from nni_supernet_ext.core.slots import PathSampler


class PlainDraws(PathSampler):
    """A path sampler all of whose draws have the role ``'subnet'``, which others learn before training.

    Example:
        >>> class Two(PlainDraws):
        ...     draws_per_step = 2
        >>> Two().roles
        ('subnet', 'subnet')
    """

    @property
    def roles(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """Role of each draw of a step; None where their number is not known yet."""
        return None if self.draws_per_step is None else ("subnet",) * self.draws_per_step
