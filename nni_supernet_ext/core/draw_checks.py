"""What a path sampler draws must be subnets of the space, and what the sampler says about its draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from nni.mutable import Categorical, SampleValidationError

from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Draw, Sample, describe_sample
from nni_supernet_ext.core.slots import PathSampler
from nni_supernet_ext.errors import ConfigurationError, SpaceError

_REMEMBERED = 10_000
"""Most values of a choice, and most samples of a space with constraints, that are remembered as good."""


class DrawChecks:
    """Check the draws of every step; what was found good once is remembered, so a step costs look-ups only.

    Args:
        paths: The sampler.
        domain: The choices it draws from: those of a part where a part of the space is trained.

    Example:
        >>> from nni_supernet_ext.paths import UniformPathSampler
        >>> from nni_supernet_ext.testing import ToySpace
        >>> checked = DrawChecks(UniformPathSampler(), Domain(ToySpace()))
        >>> len(checked([Draw({'op': 'conv', 'width': 8})]))
        1
        >>> checked([Draw({'op': 'conv', 'width': 7})])
        Traceback (most recent call last):
        ...
        nni_supernet_ext.errors.SpaceError: Method `draws` of UniformPathSampler is expected to ...
    """

    def __init__(self, paths: PathSampler, domain: Domain) -> None:
        self._paths = paths
        self._domain = domain
        self._good = [(label, mutable, _candidates(mutable)) for label, mutable in domain.mutables.items()]
        self._allowed: set[Any] | None = set() if domain.has_constraints else None

    def __call__(self, draws: Sequence[Draw]) -> Sequence[Draw]:
        """Return the draws of a step if they are as they must be: others rely on them.

        Args:
            draws: What the sampler returned.

        Returns:
            The draws.

        Raises:
            ConfigurationError: No sequence of draws, another number than the sampler's attributes promise, other
                roles, or no agreement where it is promised.
            SpaceError: A draw that is no subnet of the space.
        """
        paths = self._paths
        _refuse_other_types(paths, draws)
        expected, roles, name = paths.draws_per_step, paths.roles, type(paths).__name__
        if not draws or (expected is not None and len(draws) != expected):
            raise ConfigurationError(
                f"Method `draws` of {name} is expected to return {expected or 'at least one'} draw(s), as its "
                f"attribute `draws_per_step` says, but got {len(draws)}. Set {name}.draws_per_step to what it "
                "returns, or to None where that varies."
            )
        if roles is not None and any(draw.role != role for draw, role in zip(draws, roles, strict=False)):
            raise ConfigurationError(
                f"Method `draws` of {name} is expected to return draws of the roles {list(roles)}, as its "
                f"attribute `roles` says, but got {[draw.role for draw in draws]}. Set {name}.roles to what it "
                "returns, or to None where that varies."
            )
        for draw in draws:
            self._look_at(draw.sample)
        for label in paths.shared_choices if len(draws) > 1 else ():
            chosen = [draw.sample[label] for draw in draws]
            if any(value != chosen[0] for value in chosen):
                raise ConfigurationError(
                    f"Method `draws` of {name} is expected to return draws that agree on {label!r}, as its "
                    f"attribute `shared_choices` says, but got {chosen}. Remove the label from "
                    f"{name}.shared_choices."
                )
        return draws

    def _look_at(self, sample: Sample) -> None:
        """Refuse a sample that is no subnet of the space, or that the space's constraints forbid."""
        values = []
        try:
            for label, mutable, good in self._good:
                value = sample[label]
                # A list is no key; it must not pass for a tuple, which NNI may take for something else.
                key = (list, *value) if type(value) is list else value
                if key not in good:
                    if not _contains(mutable, sample):
                        self._validate(sample)
                    _remember(good, key)
                values.append(key)
            if len(sample) != len(values):
                self._validate(sample)
            if self._allowed is not None and (key := tuple(values)) not in self._allowed:
                self._require_constraints(sample)
                _remember(self._allowed, key)
        except (KeyError, TypeError):  # a choice left out, or a value that is no key
            self._validate(sample)
            self._require_constraints(sample)

    def _validate(self, sample: Sample) -> None:
        try:
            self._domain.validate(sample, "sample")
        except (SpaceError, SampleValidationError, TypeError, ValueError, KeyError) as error:
            unknown = [str(label) for label in sample if label not in self._domain.mutables]
            missing = [label for label in self._domain.labels if label not in sample]
            if unknown or missing:
                names = [f"{what} {labels}" for what, labels in (("no", missing), ("unknown", unknown)) if labels]
                self._refuse(sample, f"{' and '.join(names)} among the labels")
            wrong = [label for label, mutable in self._domain.mutables.items() if not _contains(mutable, sample)]
            label = wrong[0] if wrong else self._domain.labels[0]
            expected = self._domain.options.get(label, repr(self._domain.mutables[label]))
            self._refuse(sample, f"{sample[label]!r} for {label!r}, which takes {expected}", error)

    def _require_constraints(self, sample: Sample) -> None:
        if self._allowed is not None and not self._domain.satisfies_constraints(sample):
            self._refuse(sample, "one that the space's own constraints forbid")

    def _refuse(self, sample: Sample, what: str, cause: Exception | None = None) -> NoReturn:
        raise SpaceError(
            f"Method `draws` of {type(self._paths).__name__} is expected to return subnets of the space that is "
            f"trained, but got {what}, in [{describe_sample(sample)}]. Draw with `domain.random(rng)`, or take the "
            "labels and values of `domain.candidates` and ask `domain.satisfies_constraints(sample)`; `domain` is "
            "the `plan.supernet.domain` that `prepare` is given."
        ) from cause


def _refuse_other_types(paths: PathSampler, draws: Any) -> None:
    """Refuse what is no sequence of draws."""
    if type(draws) not in (list, tuple) and (not isinstance(draws, Sequence) or isinstance(draws, (str, bytes))):
        got = f"a {type(draws).__name__}" if draws is not None else "None"
    else:
        for draw in draws:
            if not isinstance(draw, Draw):
                got = f"{type(draw).__name__} in it"
                break
            if type(draw.sample) is not dict and not isinstance(draw.sample, Mapping):
                got = f"a draw whose sample is {type(draw.sample).__name__}"
                break
        else:
            return
    raise ConfigurationError(
        f"Method `draws` of {type(paths).__name__} is expected to return a list of Draw, but got {got}. Return "
        "`[Draw(sample)]`, also for a single subnet; a sample is a dict from labels to chosen values."
    )


def _candidates(mutable: Any) -> set[Any]:
    """Return the values of a choice that are known to be good from the start."""
    try:
        return set(mutable.values) if isinstance(mutable, Categorical) else set()
    except TypeError:  # candidates that are no keys
        return set()


def _contains(mutable: Any, sample: Sample) -> bool:
    try:
        return mutable.check_contains(dict(sample)) is None
    except (SampleValidationError, TypeError, ValueError, KeyError):
        return False


def _remember(known: set[Any], key: Any) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()  # candidates too: they are found good again
    known.add(key)
