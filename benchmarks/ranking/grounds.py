"""What is searched and what is known about it: a space, its images, and the measured table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import Images, cifar_images, noisy_digits
from protocols import Protocol

from nni_supernet_ext.benchmarks import BenchmarkOracle, DigitCellsOracle, NasBench201Oracle, NasBenchMacroOracle
from nni_supernet_ext.spaces import (
    NASBENCH201_OPERATIONS,
    digit_cells,
    digit_cells_flops,
    digit_cells_params,
    nasbench201,
    nasbench201_flops,
    nasbench201_params,
    nasbench_macro,
    nasbench_macro_flops,
    nasbench_macro_params,
)

Cost = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True)
class Ground:
    """A benchmark that methods are compared on.

    Attributes:
        space: Makes the untrained search space of a protocol.
        oracle: Reads the table from a folder.
        images: Reads the images of a protocol from a folder.
        costs: Predictors that need no training: name -> cost of a sample.
        needs_data: Whether table and images must be given in a folder.
        dependencies: Which choices a choice's weights depend on in conditional training.
        ignores: Settings of a protocol that change nothing here.
    """

    space: Callable[[Protocol], Any]
    oracle: Callable[[Any], BenchmarkOracle]
    images: Callable[[Path, Protocol], Images]
    costs: Mapping[str, Cost]
    needs_data: bool = True
    dependencies: str = "nasbench201"
    ignores: frozenset[str] = frozenset()


def _nasbench201(protocol: Protocol) -> Any:
    return nasbench201(
        protocol.channels,
        protocol.cells,
        operations=protocol.operations or NASBENCH201_OPERATIONS,
        track_running_stats=_tracks(protocol),
    )


def _tracks(protocol: Protocol) -> bool:
    return protocol.bn_mode == "recalibrated"


GROUNDS: dict[str, Ground] = {
    "nasbench201": Ground(
        _nasbench201,
        NasBench201Oracle,
        cifar_images,
        {"params": nasbench201_params, "flops": nasbench201_flops},
    ),
    "nasbench_macro": Ground(
        lambda protocol: nasbench_macro(protocol.channels),
        NasBenchMacroOracle,
        cifar_images,
        {"params": nasbench_macro_params, "flops": nasbench_macro_flops},
        dependencies="sequential",
        ignores=frozenset({"cells", "operations", "bn_mode"}),
    ),
    "digit_cells": Ground(
        lambda protocol: digit_cells(track_running_stats=_tracks(protocol)),
        lambda folder: DigitCellsOracle(),
        lambda folder, protocol: noisy_digits(protocol),
        {"params": digit_cells_params, "flops": digit_cells_flops},
        needs_data=False,
        ignores=frozenset({"channels", "cells", "image_size", "operations", "whole_train_set"}),
    ),
}
