"""Names and codes of NAS-Bench-Macro; needs neither NNI nor torch."""

from __future__ import annotations

from collections.abc import Mapping

from nni_supernet_ext.errors import SpaceError

__all__ = ["NASBENCH_MACRO_LABELS", "NASBENCH_MACRO_OPERATIONS", "nasbench_macro_operations"]

NASBENCH_MACRO_OPERATIONS = ("identity", "mb3_k3", "mb6_k5")
"""Candidates of a layer, in the order of the benchmark's digits."""

NASBENCH_MACRO_LABELS = tuple(f"layer{index}" for index in range(8))
"""Labels of the layers, from the input to the output."""

NASBENCH_MACRO_STAGES = (2, 3, 3)
"""Layers in each stage."""

NASBENCH_MACRO_BLOCKS = {"mb3_k3": (3, 3), "mb6_k5": (6, 5)}
"""Expansion and kernel size of the candidates that are no identity."""


def nasbench_macro_operations(architecture: Mapping[str, str] | str) -> list[str]:
    """Return the operation of each layer of an architecture.

    Args:
        architecture: Sample, or the benchmark's eight digits.

    Returns:
        Eight names of `NASBENCH_MACRO_OPERATIONS`.

    Raises:
        SpaceError: It is no architecture of NAS-Bench-Macro.

    Example:
        >>> nasbench_macro_operations('01200000')[:3]
        ['identity', 'mb3_k3', 'mb6_k5']
    """
    names = dict(enumerate(NASBENCH_MACRO_OPERATIONS))
    if isinstance(architecture, str):
        if len(architecture) == len(NASBENCH_MACRO_LABELS) and set(architecture) <= set(map(str, names)):
            return [names[int(digit)] for digit in architecture]
    else:
        sample = {str.__str__(label): operation for label, operation in architecture.items()}
        if set(sample) == set(NASBENCH_MACRO_LABELS) and set(sample.values()) <= set(names.values()):
            return [sample[label] for label in NASBENCH_MACRO_LABELS]
    raise SpaceError(
        f"Argument `architecture` is expected to give each of {list(NASBENCH_MACRO_LABELS)} one of "
        f"{list(NASBENCH_MACRO_OPERATIONS)}, or to be eight digits 0 to 2, but got {architecture!r}. Pass a "
        "complete sample or code."
    )
