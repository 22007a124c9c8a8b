"""Search spaces as NNI model spaces, with the networks and codes of their benchmarks."""

from __future__ import annotations

from nni_supernet_ext.spaces.attentive_cost import attentive_mobilenet_flops
from nni_supernet_ext.spaces.attentive_mobilenet import (
    AttentiveMobileNet,
    Stage,
    attentive_mobilenet,
    attentive_mobilenet_cifar,
)
from nni_supernet_ext.spaces.digit_cells import (
    DIGIT_CELLS_OPERATIONS,
    digit_cells,
    digit_cells_flops,
    digit_cells_params,
)
from nni_supernet_ext.spaces.nasbench201 import NasBench201, nasbench201
from nni_supernet_ext.spaces.nasbench201_arch import (
    NASBENCH201_EDGES,
    NASBENCH201_OPERATIONS,
    arch_to_sample,
    sample_to_arch,
)
from nni_supernet_ext.spaces.nasbench201_cost import nasbench201_flops, nasbench201_params
from nni_supernet_ext.spaces.nasbench201_standalone import NasBench201Network, nasbench201_network
from nni_supernet_ext.spaces.nasbench_macro import NasBenchMacro, nasbench_macro
from nni_supernet_ext.spaces.nasbench_macro_arch import (
    NASBENCH_MACRO_LABELS,
    NASBENCH_MACRO_OPERATIONS,
    nasbench_macro_operations,
)
from nni_supernet_ext.spaces.nasbench_macro_cost import nasbench_macro_flops, nasbench_macro_params

__all__ = [
    "DIGIT_CELLS_OPERATIONS",
    "NASBENCH201_EDGES",
    "NASBENCH201_OPERATIONS",
    "NASBENCH_MACRO_LABELS",
    "NASBENCH_MACRO_OPERATIONS",
    "AttentiveMobileNet",
    "NasBench201",
    "NasBench201Network",
    "NasBenchMacro",
    "Stage",
    "arch_to_sample",
    "attentive_mobilenet",
    "attentive_mobilenet_cifar",
    "attentive_mobilenet_flops",
    "digit_cells",
    "digit_cells_flops",
    "digit_cells_params",
    "nasbench201",
    "nasbench201_flops",
    "nasbench201_network",
    "nasbench201_params",
    "nasbench_macro",
    "nasbench_macro_flops",
    "nasbench_macro_operations",
    "nasbench_macro_params",
    "sample_to_arch",
]
