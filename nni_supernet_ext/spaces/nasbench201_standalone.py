"""One NAS-Bench-201 architecture as a plain network, as the benchmark trains it alone."""

from __future__ import annotations

from collections.abc import Mapping

from nni_supernet_ext.spaces.nasbench201_arch import NASBENCH201_EDGES, arch_to_sample, sample_to_arch
from nni_supernet_ext.spaces.nasbench201_ops import BatchNormKind, Cell, build_operation
from nni_supernet_ext.spaces.nasbench201_skeleton import Skeleton

__all__ = ["NasBench201Network", "nasbench201_network"]


class NasBench201Network(Skeleton):
    """Hold one architecture as a plain network; built by `nasbench201_network`.

    Args:
        arch: Architecture string.
        channels: Output channels of the stem.
        cells_per_stage: Cells in each of the three stages.
        n_classes: Outputs of the classifier.
        in_channels: Channels of the image.
        kind: Builder of every batch normalization.
        stages: Stages of cells.

    Attributes:
        arch: Architecture string.

    Raises:
        SpaceError: `arch` is malformed.

    Example:
        >>> network = nasbench201_network("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
        >>> network.arch
        '|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|'

    Reference:
        Dong and Yang, "NAS-Bench-201", ICLR 2020, Section 2.1.
    """

    def __init__(
        self,
        arch: str,
        channels: int,
        cells_per_stage: int,
        n_classes: int,
        in_channels: int,
        kind: BatchNormKind,
        stages: int = 3,
    ) -> None:
        super().__init__()
        self.arch = arch
        operations = arch_to_sample(arch).values()

        def make_cell(width: int, kind: BatchNormKind) -> Cell:
            built = [build_operation(operation, width, kind) for operation in operations]
            return Cell(dict(zip(NASBENCH201_EDGES, built, strict=True)))

        self.assemble(make_cell, channels, cells_per_stage, n_classes, in_channels, kind, stages)

    def extra_repr(self) -> str:
        return f"arch={self.arch!r}"


def nasbench201_network(
    architecture: Mapping[str, str] | str,
    channels: int = 16,
    cells_per_stage: int = 5,
    n_classes: int = 10,
    in_channels: int = 3,
    affine: bool = True,
    track_running_stats: bool = True,
    stages: int = 3,
) -> NasBench201Network:
    """Build one architecture as a plain network without choices, by default as the benchmark trains it.

    Its state dict has the names of a subnet frozen from `NasBench201`, so weights move between the two when
    `affine` and `track_running_stats` agree.

    Args:
        architecture: Sample or architecture string.
        channels: Output channels of the stem. Default: 16.
        cells_per_stage: Cells in each of the three stages. Default: 5.
        n_classes: Outputs of the classifier. Default: 10.
        in_channels: Channels of the image. Default: 3.
        affine: Learn a scale and a shift in every batch normalization; otherwise the convolutions of cells
            and residual blocks have a bias. Default: True.
        track_running_stats: Keep running statistics in every batch normalization. Default: True.
        stages: Stages of cells, each at half the size and twice the width of the one before. Default: 3.

    Returns:
        Network from images [N, in_channels, H, W] to logits [N, n_classes].

    Raises:
        ConfigurationError: A size is not a positive integer.
        SpaceError: The architecture is not one of NAS-Bench-201.

    Example:
        >>> network = nasbench201_network("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|")
        >>> sum(parameter.numel() for parameter in network.parameters())
        316346

    Reference:
        Dong and Yang, "NAS-Bench-201", ICLR 2020, Section 2.1.
    """
    arch = architecture if isinstance(architecture, str) else sample_to_arch(architecture)
    kind = BatchNormKind(affine, track_running_stats)
    return NasBench201Network(arch, channels, cells_per_stage, n_classes, in_channels, kind, stages)
