"""What follows from a NAS-Bench-201 architecture alone: its string, its costs, its isomorphism group."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nni_supernet_ext.errors import DataError

EDGES = ("0_1", "0_2", "1_2", "0_3", "1_3", "2_3")
"""Edges of the cell, in the order of a code's digits and of an architecture string."""

OPERATIONS = ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")
"""Operation of the digits 0 to 4."""

_WRITTEN = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_NODES = ((0,), (1, 2), (3, 4, 5))
# Millions: of the skeleton, of a 1x1 and of a 3x3 convolution on one edge of all 15 cells.
_COSTS = ((0.073306, 0.028, 0.24304), (7.78305, 3.93216, 35.38944), (1.9534, 0.98304, 8.84736))


def arch_of(code: str) -> str:
    """Write a code as the benchmark's architecture string.

    Example:
        >>> arch_of('123401')
        '|skip_connect~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|avg_pool_3x3~0|none~1|skip_connect~2|'
    """
    nodes = (
        "|".join(f"{_WRITTEN[int(code[edge])]}~{source}" for source, edge in enumerate(edges)) for edges in _NODES
    )
    return "+".join(f"|{node}|" for node in nodes)


def code_of_arch(arch: str) -> str:
    """Read the benchmark's architecture string as a code.

    Raises:
        DataError: The string has another form or names an unknown operation.

    Example:
        >>> code_of_arch('|skip_connect~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|avg_pool_3x3~0|none~1|skip_connect~2|')
        '123401'
    """
    operations = re.findall(r"([a-z0-9_]+)~", arch)
    code = "".join(str(_WRITTEN.index(op)) for op in operations if op in _WRITTEN)
    if len(code) != len(EDGES) or arch_of(code) != arch:
        raise DataError(
            f"Architecture strings are expected to look like {arch_of('000000')}, but got {arch!r}. Read a "
            "NAS-Bench-201 (topology) file."
        )
    return code


def code_of_edges(operations: Mapping[str, str]) -> str:
    """Read edge -> operation, as NNI's database writes an architecture, as a code.

    Example:
        >>> code_of_edges({edge: 'conv_3x3' for edge in EDGES})
        '333333'
    """
    return "".join(str(OPERATIONS.index(operations[edge])) for edge in EDGES)


def costs(code: str) -> tuple[float, float, float]:
    """Return the millions of parameters, of FLOPs, and of FLOPs at 16x16, as the benchmark counts them.

    Dead edges are included; CIFAR-10's classifier, and for 16x16 that of ImageNet16-120.

    Example:
        >>> costs('000000')
        (0.073306, 7.78305, 1.9534)
    """
    point, full = code.count("2"), code.count("3")
    params, flops, small = (base + one * point + three * full for base, one, three in _COSTS)
    return params, flops, small


def unique_form(code: str) -> str:
    """Return a text that is equal for cells that the benchmark counts as isomorphic: 6,466 of 15,625.

    A node is the sorted sum of its inputs, a skip connection is its source, and an operation on nothing is
    nothing. As in the benchmark, an empty operand stays in a sum (without it 4,930 forms would be left), and a
    sum that a skip connection carries on is not sorted into the next.

    Example:
        >>> unique_form('000300') == unique_form('000310') != unique_form('000200')
        True

    Reference:
        Dong and Yang, ICLR 2020, section 2.1 (the number of unique topologies).
    """
    nodes = ["0"]
    for edges in _NODES:
        terms = []
        for source, edge in enumerate(edges):
            operation, operand = _WRITTEN[int(code[edge])], nodes[source]
            if operation == "none" or operand == "#":
                terms.append("#")
            else:
                terms.append(operand if operation == "skip_connect" else f"({operand})@{operation}")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]
