"""What a path sampler draws must be what it says about its draws."""

from __future__ import annotations

from collections.abc import Sequence

from nni_supernet_ext.core.draw import Draw
from nni_supernet_ext.core.slots import PathSampler
from nni_supernet_ext.errors import ConfigurationError


def checked_draws(paths: PathSampler, draws: Sequence[Draw]) -> Sequence[Draw]:
    """Return the draws of a step if they are as the sampler's attributes promise: others rely on them.

    Args:
        paths: The sampler.
        draws: What it returned.

    Returns:
        The draws.

    Raises:
        ConfigurationError: Another number, other roles, or no agreement where it is promised.
    """
    expected, roles, name = paths.draws_per_step, paths.roles, type(paths).__name__
    if not draws or (expected is not None and len(draws) != expected):
        raise ConfigurationError(
            f"Method `draws` of {name} is expected to return {expected or 'at least one'} draw(s), as its "
            f"attribute `draws_per_step` says, but got {len(draws)}. Set {name}.draws_per_step to what it returns, "
            "or to None where that varies."
        )
    if roles is not None and any(draw.role != role for draw, role in zip(draws, roles, strict=False)):
        raise ConfigurationError(
            f"Method `draws` of {name} is expected to return draws of the roles {list(roles)}, as its "
            f"attribute `roles` says, but got {[draw.role for draw in draws]}. Set {name}.roles to what it "
            "returns, or to None where that varies."
        )
    for label in paths.shared_choices if len(draws) > 1 else ():
        chosen = [draw.sample[label] for draw in draws]
        if any(value != chosen[0] for value in chosen):
            raise ConfigurationError(
                f"Method `draws` of {name} is expected to return draws that agree on {label!r}, as its attribute "
                f"`shared_choices` says, but got {chosen}. Remove the label from {name}.shared_choices."
            )
    return draws
