"""From a trial's parameters to the parts of a strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nni_supernet_ext.errors import ConfigurationError


def make_parts(parameters: Mapping[str, Any], key: str, known: Mapping[str, Callable[..., Any]]) -> list[Any]:
    """Make the objects that a parameter names, each with its own parameters.

    The parameter's value is names joined by ``+``; a name that is not known, such as ``spos``, is refused unless
    ``known`` maps it to None. The arguments of the part ``calr`` are the parameters ``calr.<argument>``.

    Args:
        parameters: The trial's parameters.
        key: Name of the parameter.
        known: Name -> class or function.

    Returns:
        One object per name, in the order given; none for names mapped to None.

    Raises:
        ConfigurationError: The parameter is missing or names something unknown.

    Example:
        >>> make_parts({"method": "spos+calr", "calr.x": 4}, "method", {"spos": None, "calr": dict})
        [{'x': 4}]
    """
    if key not in parameters:
        raise ConfigurationError(
            f"The trial's parameters are expected to hold {key!r}, but got {sorted(parameters)}. Add it to the "
            "experiment's search space or to the defaults of the trial."
        )
    parts = []
    for name in str(parameters[key]).split("+"):
        if name not in known:
            raise ConfigurationError(
                f"Parameter {key!r} is expected to name {sorted(known)}, joined by '+', but got {name!r}. Correct "
                "the search space."
            )
        prefix = f"{name}."
        own = {label[len(prefix) :]: value for label, value in parameters.items() if label.startswith(prefix)}
        make = known[name]
        if make is not None:
            parts.append(make(**own))
    return parts
