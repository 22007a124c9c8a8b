"""Names and architecture strings of NAS-Bench-201; needs neither NNI nor torch."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nni_supernet_ext.errors import SpaceError

__all__ = [
    "NASBENCH201_EDGES",
    "NASBENCH201_OPERATIONS",
    "arch_to_sample",
    "sample_to_arch",
]

NASBENCH201_OPERATIONS = ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")
"""Candidate operations of an edge, in the order of the benchmark's own operation list."""

NASBENCH201_EDGES = ("0_1", "0_2", "1_2", "0_3", "1_3", "2_3")
"""Edges ``{from}_{to}`` of the cell, in the order in which an architecture string names them."""

_LABEL_PREFIX = "cell/"
_ARCH_FORM = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
_SOURCES = [re.findall(r"\d", node) for node in _ARCH_FORM.split("+")]
# The benchmark writes its convolutions with a prefix that NNI leaves out.
_TO_ARCH = {op: f"nor_{op}" if op.startswith("conv") else op for op in NASBENCH201_OPERATIONS}
_FROM_ARCH = {written: op for op, written in _TO_ARCH.items()}


def sample_to_arch(sample: Mapping[str, str]) -> str:
    """Write a sample as the benchmark's architecture string.

    Args:
        sample: Edge label -> operation. Labels are ``cell/0_1`` ... ``cell/2_3``; the part before the last
            slash is ignored, so the bare labels of ``nni.nas.benchmark`` work too.

    Returns:
        ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``: the inputs of nodes 1, 2 and 3, each as operation~source.

    Raises:
        SpaceError: An edge is missing or unknown, or an operation is not one of the five.

    Example:
        >>> sample = {f"cell/{edge}": "none" for edge in NASBENCH201_EDGES}
        >>> sample_to_arch({**sample, "cell/0_3": "conv_3x3"})
        '|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|'

    Reference:
        Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
        ICLR 2020, Section 2.1 (the cell); the string form is that of the published benchmark files.
    """
    by_edge = _by_edge(sample)
    nodes = (
        "|".join(f"{_TO_ARCH[by_edge[f'{source}_{node}']]}~{source}" for source in sources)
        for node, sources in enumerate(_SOURCES, start=1)
    )
    return "+".join(f"|{node}|" for node in nodes)


def arch_to_sample(arch: str) -> dict[str, str]:
    """Read the benchmark's architecture string into a sample of the search space.

    Args:
        arch: ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`` with the benchmark's operation names.

    Returns:
        Label ``cell/{from}_{to}`` -> operation, in the order of `NASBENCH201_EDGES`.

    Raises:
        SpaceError: The string has another form or names an unknown operation.

    Example:
        >>> arch_to_sample("|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|skip_connect~2|")["cell/0_3"]
        'conv_3x3'

    Reference:
        As `sample_to_arch`, whose inverse this is.
    """
    if not isinstance(arch, str):
        raise SpaceError(_bad_arch(arch))
    nodes = [re.findall(r"([^|~+]+)~(\d)", node) for node in arch.split("+")]
    operations = [operation for node in nodes for operation, _ in node]
    # Writing what was read back is the strictest test of the form, and covers every way of being malformed.
    rewritten = "+".join("|" + "".join(f"{op}~{source}|" for op, source in node) for node in nodes)
    if rewritten != arch or [[source for _, source in node] for node in nodes] != _SOURCES:
        raise SpaceError(_bad_arch(arch))
    unknown = [operation for operation in operations if operation not in _FROM_ARCH]
    if unknown:
        raise SpaceError(
            f"Argument `arch` is expected to name operations from {sorted(_FROM_ARCH)}, but got "
            f"{unknown[0]!r}. Check the spelling; architecture strings "
            "write convolutions as nor_conv_1x1 and nor_conv_3x3."
        )
    return {
        _LABEL_PREFIX + edge: _FROM_ARCH[operation]
        for edge, operation in zip(NASBENCH201_EDGES, operations, strict=True)
    }


def _by_edge(sample: Mapping[str, str]) -> dict[str, str]:
    """Return edge -> operation after checking both, whatever scope the labels stand in."""
    by_edge = {str(label).rpartition("/")[2]: operation for label, operation in sample.items()}
    if len(sample) != len(NASBENCH201_EDGES) or set(by_edge) != set(NASBENCH201_EDGES):
        expected = [_LABEL_PREFIX + edge for edge in NASBENCH201_EDGES]
        raise SpaceError(
            f"Argument `sample` is expected to have the labels {expected}, but got "
            f"{[str(label) for label in sample]}. Pass a complete sample of the NAS-Bench-201 space."
        )
    for edge, operation in by_edge.items():
        if operation not in NASBENCH201_OPERATIONS:
            raise SpaceError(
                f"Label `{_LABEL_PREFIX}{edge}` is expected to be one of {list(NASBENCH201_OPERATIONS)}, but "
                f"got {operation!r}. Samples use NNI's operation names, architecture strings the benchmark's."
            )
    return by_edge


def _bad_arch(arch: object) -> str:
    return (
        f"Argument `arch` is expected to have the form {_ARCH_FORM!r}, but got {arch!r}. "
        "Name every edge, also one without an operation (none), with its source node."
    )
