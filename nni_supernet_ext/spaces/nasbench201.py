"""The NAS-Bench-201 search space as an NNI model space."""

from __future__ import annotations

from collections.abc import Sequence

from nni.mutable import label_scope
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.spaces.nasbench201_arch import NASBENCH201_EDGES, NASBENCH201_OPERATIONS
from nni_supernet_ext.spaces.nasbench201_ops import BatchNormKind, Cell, build_operation
from nni_supernet_ext.spaces.nasbench201_skeleton import Skeleton

__all__ = ["NasBench201", "nasbench201"]


class NasBench201(Skeleton, ModelSpace):
    """Build the NAS-Bench-201 search space: one `LayerChoice` per edge of a cell that all cells share.

    Labels (``cell/0_1`` ... ``cell/2_3``) and candidate names are those of NNI's own NAS-Bench-201 space, so
    samples can be exchanged with it and with ``nni.nas.benchmark``. The default normalization is the one that
    supernets on this benchmark are commonly trained with: batch statistics only, no scale and shift.

    Args:
        channels: Output channels of the stem; the stages have 1, 2 and 4 times as many. Default: 16.
        cells_per_stage: Cells in each of the stages. Default: 5.
        n_classes: Outputs of the classifier. Default: 10.
        in_channels: Channels of the image. Default: 3.
        operations: Candidates of every edge, a selection from `NASBENCH201_OPERATIONS`. Default: all five.
        affine: Learn a scale and a shift in every batch normalization of the network; where they are not
            learnt, the convolutions of cells and residual blocks have a bias instead. Default: False.
        track_running_stats: Keep running statistics in every batch normalization, as needed for batch-norm
            recalibration. When False the statistics of the current batch are used also in evaluation.
            Default: False.
        stages: Stages of cells, each at half the size and twice the width of the one before. The benchmark has
            three; one is enough for very small images. Default: 3.

    Raises:
        ConfigurationError: A size is not a positive integer, or `operations` is empty or has a repeated or
            unknown name.

    Example:
        >>> space = NasBench201()
        >>> sum(parameter.numel() for parameter in space.parameters())
        1692474
        >>> sorted(space.simplify())
        ['cell/0_1', 'cell/0_2', 'cell/0_3', 'cell/1_2', 'cell/1_3', 'cell/2_3']

    Reference:
        Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
        ICLR 2020, Section 2.1 and Figure 1.

    Deviations:
        ``none`` is left out of a node's sum instead of being added as a tensor of zeros. Outputs are the
        same; a parameter that cannot reach the output gets no gradient instead of a gradient of zeros.
        Odd image sizes, for which the original residual block fails, are rounded up.
    """

    def __init__(
        self,
        channels: int = 16,
        cells_per_stage: int = 5,
        n_classes: int = 10,
        in_channels: int = 3,
        operations: Sequence[str] = NASBENCH201_OPERATIONS,
        affine: bool = False,
        track_running_stats: bool = False,
        stages: int = 3,
    ) -> None:
        super().__init__()
        _check_operations(operations)

        def make_cell(width: int, kind: BatchNormKind) -> Cell:
            with label_scope("cell"):
                return Cell({edge: make_choice(edge, width, kind) for edge in NASBENCH201_EDGES})

        def make_choice(edge: str, width: int, kind: BatchNormKind) -> nn.Module:
            candidates = {name: build_operation(name, width, kind) for name in operations}
            return LayerChoice(candidates, label=edge)

        kind = BatchNormKind(affine, track_running_stats)
        self.assemble(make_cell, channels, cells_per_stage, n_classes, in_channels, kind, stages)


def nasbench201(
    channels: int = 16,
    cells_per_stage: int = 5,
    n_classes: int = 10,
    in_channels: int = 3,
    operations: Sequence[str] = NASBENCH201_OPERATIONS,
    affine: bool = False,
    track_running_stats: bool = False,
    stages: int = 3,
) -> NasBench201:
    """Build the NAS-Bench-201 search space; the function form of `NasBench201`, with the same arguments.

    Args:
        channels: Output channels of the stem. Default: 16.
        cells_per_stage: Cells in each of the three stages. Default: 5.
        n_classes: Outputs of the classifier. Default: 10.
        in_channels: Channels of the image. Default: 3.
        operations: Candidates of every edge. Default: all five.
        affine: Learn a scale and a shift in every batch normalization. Default: False.
        track_running_stats: Keep running statistics in every batch normalization. Default: False.
        stages: Stages of cells. Default: 3.

    Returns:
        The search space, to be given to a strategy.

    Raises:
        ConfigurationError: A size is not a positive integer, or `operations` is empty or has a repeated or
            unknown name.

    Example:
        >>> space = nasbench201(channels=4, cells_per_stage=1, operations=["skip_connect", "conv_1x1"])
        >>> space.simplify()["cell/0_1"].values
        ['skip_connect', 'conv_1x1']

    Reference:
        Dong and Yang, "NAS-Bench-201", ICLR 2020, Section 2.1.
    """
    return NasBench201(
        channels, cells_per_stage, n_classes, in_channels, operations, affine, track_running_stats, stages
    )


def _check_operations(operations: Sequence[str]) -> None:
    known = set(operations) <= set(NASBENCH201_OPERATIONS)
    if isinstance(operations, str) or not operations or not known or len(set(operations)) < len(operations):
        raise ConfigurationError(
            f"Argument `operations` is expected to list names from {list(NASBENCH201_OPERATIONS)}, each "
            f"at most once, but got {operations!r}. Use NNI's names, such as 'conv_3x3', not "
            "'nor_conv_3x3'."
        )
