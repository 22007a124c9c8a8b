"""The axes of the hyper-parameter page: a model space in the form of NNI's search spaces."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from nni.mutable import Categorical, CategoricalMultiple

from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Sample

STAGE = "stage"
"""Name of the axis that tells the supernet's training from the subnets; see `search_axes`."""

STAGES = ("supernet", "subnet")
_OWN_STAGE = "stage (of the space)"
"""What the axis of a choice is called whose label is that name."""
_MOST_VALUES = 64


def search_axes(domain: Domain) -> dict[str, dict[str, Any]]:
    """Describe a space's choices in NNI's form, and put the axis ``stage`` in front.

    Args:
        domain: Choices of the model space.

    Returns:
        Label -> ``{"_type": ..., "_value": [...]}``, as in a ``searchSpaceFile``. A choice that has no such
        form, or a choice of several inputs with more than 64 combinations, is left out.

    Example:
        >>> from nni_supernet_ext.testing import ToySpace
        >>> search_axes(Domain(ToySpace()))["width"]
        {'_type': 'choice', '_value': [4, 8]}
    """
    axes: dict[str, dict[str, Any]] = {STAGE: {"_type": "choice", "_value": list(STAGES)}}
    for label, mutable in domain.mutables.items():
        if isinstance(mutable, Categorical):
            axes[_axis(label)] = _choice([_value(value) for value in mutable.values])
        elif isinstance(mutable, CategoricalMultiple):
            combinations = _combinations(mutable)
            if combinations is not None:
                axes[_axis(label)] = _choice(combinations)
        else:
            try:
                axes[_axis(label)] = dict(mutable.as_legacy_dict())
            except NotImplementedError:
                continue
    return axes


def subnet_parameters(sample: Sample) -> dict[str, Any]:
    """Return a subnet's architecture as the parameters of a trial.

    Args:
        sample: Label -> chosen value.

    Returns:
        The values of `search_axes`; several chosen inputs become one text, such as ``'0,2'``.

    Example:
        >>> subnet_parameters({"op": "conv", "inputs": [0, 2]})
        {'stage': 'subnet', 'op': 'conv', 'inputs': '0,2'}
    """
    return {STAGE: STAGES[1], **{_axis(label): _value(value) for label, value in sample.items()}}


def sample_from_parameters(parameters: Mapping[str, Any], domain: Domain) -> dict[str, Any]:
    """Return the architecture that a trial's parameters describe; the inverse of `subnet_parameters`.

    Args:
        parameters: A trial's parameters, for example one entry of ``nnictl experiment export``; those that name
            no choice of the space are passed over.
        domain: Choices of the model space.

    Returns:
        Label -> chosen value.

    Raises:
        SpaceError: A choice is missing or has an unknown value.

    Example:
        >>> from nni_supernet_ext.testing import ToySpace
        >>> sample_from_parameters({"stage": "subnet", "op": "conv", "width": 4}, Domain(ToySpace()))
        {'width': 4, 'op': 'conv'}
    """
    sample: dict[str, Any] = {}
    for label in domain.labels:
        axis = _axis(label)
        if axis not in parameters:
            continue
        options = domain.options.get(label)
        given = parameters[axis]
        if options is None:
            sample[label] = given
        elif label in domain.candidates:
            sample[label] = _candidate(given, options)
        else:
            sample[label] = [_candidate(part, options) for part in str(given).split(",") if part]
    domain.validate(sample, "parameters")
    return sample


def _axis(label: str) -> str:
    """Return a choice's name on the page; the axis ``stage`` is there already."""
    return _OWN_STAGE if label == STAGE else str.__str__(label)


def _choice(values: list[Any]) -> dict[str, Any]:
    return {"_type": "choice", "_value": values}


def _candidate(given: Any, options: Iterable[Any]) -> Any:
    """Return the candidate that a parameter stands for: exported tables turn numbers into text, 0.0 into ``0``."""
    text, known = str(given), list(options)
    for option in known:
        if str(_value(option)) == text:
            return option
    number = _number(given)
    for option in known:
        if isinstance(option, (int, float)) and not isinstance(option, bool) and option == number:
            return option
    return given


def _number(given: Any) -> float | None:
    try:
        return None if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        return None


def _combinations(mutable: CategoricalMultiple) -> list[Any] | None:
    values = list(mutable.values)
    if mutable.n_chosen is None:
        return None
    chosen = int(mutable.n_chosen)
    if math.comb(len(values), chosen) > _MOST_VALUES:
        return None
    return [_value(list(combination)) for combination in itertools.combinations(values, chosen)]


def _value(value: Any) -> Any:
    """Turn a candidate into what JSON and an axis can hold."""
    if isinstance(value, (list, tuple)):
        return ",".join(str(_value(item)) for item in value)
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, (int, float)):
        return value
    return str.__str__(value) if isinstance(value, str) else str(value)
