"""The search space of the DigitCells benchmark: one NAS-Bench-201 cell for 8x8 images."""

from __future__ import annotations

from collections.abc import Mapping

from nni_supernet_ext.spaces.nasbench201 import NasBench201, nasbench201
from nni_supernet_ext.spaces.nasbench201_cost import nasbench201_flops, nasbench201_params

__all__ = ["DIGIT_CELLS_OPERATIONS", "digit_cells", "digit_cells_flops", "digit_cells_params"]

DIGIT_CELLS_OPERATIONS = ("skip_connect", "conv_1x1", "conv_3x3")
"""Candidates of each of the six edges."""
_SIZES: dict[str, int] = {"channels": 8, "cells_per_stage": 1, "in_channels": 1, "stages": 1}


def digit_cells(affine: bool = False, track_running_stats: bool = False) -> NasBench201:
    """Build the space of the DigitCells benchmark: 729 architectures, small enough to train in a second.

    Args:
        affine: Learn a scale and a shift in every batch normalization. The benchmark's networks, trained alone,
            do; supernets commonly do not. Default: False.
        track_running_stats: Keep running statistics, as needed for batch-norm recalibration. Default: False.

    Returns:
        The search space, with the labels ``cell/0_1`` ... ``cell/2_3`` of NAS-Bench-201.

    Example:
        >>> space = digit_cells()
        >>> len(space.simplify()), space.simplify()["cell/0_1"].values
        (6, ['skip_connect', 'conv_1x1', 'conv_3x3'])

    Reference:
        The cell is that of Dong and Yang, "NAS-Bench-201", ICLR 2020, Section 2.1, with three of its operations.
    """
    return nasbench201(
        operations=DIGIT_CELLS_OPERATIONS, affine=affine, track_running_stats=track_running_stats, **_SIZES
    )


def digit_cells_params(architecture: Mapping[str, str] | str) -> int:
    """Count the parameters of an architecture's network as the benchmark trains it.

    Args:
        architecture: Sample or architecture string.

    Returns:
        Number of parameters.

    Raises:
        SpaceError: The architecture is malformed.

    Example:
        >>> from nni_supernet_ext.spaces import NASBENCH201_EDGES
        >>> digit_cells_params({f"cell/{edge}": "skip_connect" for edge in NASBENCH201_EDGES})
        194
    """
    return nasbench201_params(architecture, **_SIZES)


def digit_cells_flops(architecture: Mapping[str, str] | str) -> int:
    """Count the multiply-adds of an architecture's network for one 8x8 image.

    Args:
        architecture: Sample or architecture string.

    Returns:
        Multiply-adds of convolutions and classifier.

    Raises:
        SpaceError: The architecture is malformed.

    Example:
        >>> from nni_supernet_ext.spaces import NASBENCH201_EDGES
        >>> digit_cells_flops({f"cell/{edge}": "skip_connect" for edge in NASBENCH201_EDGES})
        4698
    """
    return nasbench201_flops(architecture, image_size=8, **_SIZES)
