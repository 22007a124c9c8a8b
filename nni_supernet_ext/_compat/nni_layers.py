"""Mend defects of NNI 3.0's mutable layers: one function per defect, each only where it is still there."""

from __future__ import annotations

import contextlib
import itertools
from types import SimpleNamespace
from typing import Any

import torch

__all__ = [
    "fix_batch_norm_without_momentum",
    "fix_batch_norm_without_weights",
    "fix_dropout_of_mutable_attention",
    "fix_freeze_of_mutable_layers",
    "fix_padding_of_mutable_kernels",
    "fix_slicing_of_layer_norm",
]


def fix_freeze_of_mutable_layers() -> bool:
    """Let mutable layers be frozen as they are: without bias too, in their precision, mode and place.

    NNI's ``MixedOperation.freeze`` hands ``bias=None`` to ``load_state_dict``, which refuses the key: no
    ``MutableConv2d`` or ``MutableLinear`` with ``bias=False`` can be frozen. And it builds the layer afresh, in
    single precision, on the CPU, in train mode and with every parameter to be trained, whatever the supernet's
    layer is.

    Returns:
        Whether the defect was there and was fixed.
    """
    from nni.mutable import Categorical, frozen_context
    from nni.nas.oneshot.pytorch.supermodule.operation import MixedLinear, MixedOperation

    def freeze(self: Any, sample: dict[str, Any]) -> Any:
        chosen = {name: mutable.freeze(sample) for name, mutable in self.mutable_arguments.items()}
        arguments = {**self.init_arguments, **chosen}
        operation = self.bound_type(**arguments)
        weights = self.freeze_weight(**arguments)
        tensors = {name: weight for name, weight in weights.items() if weight is not None}
        for tensor in itertools.islice(tensors.values(), 1):
            operation.to(tensor.device, tensor.dtype)
        operation.load_state_dict(tensors)
        trained = {name: parameter.requires_grad for name, parameter in self.named_parameters()}
        for name, parameter in operation.named_parameters():
            parameter.requires_grad_(trained.get(name, True))
        return operation.train(self.training)

    width = Categorical([1, 2], label="probe")
    with frozen_context():  # as a strategy makes them; outside, NNI warns of a module without a space
        probe = MixedLinear({"in_features": 1, "out_features": width, "bias": False})
    probe.double().requires_grad_(False).eval()
    with contextlib.suppress(RuntimeError):
        layer = probe.freeze({"probe": 1})
        if layer.weight.dtype == torch.float64 and not layer.weight.requires_grad and not layer.training:
            return False
    MixedOperation.freeze = freeze
    return True


def fix_batch_norm_without_weights() -> bool:
    """Let a batch norm of mutable width do without weights (``affine=False``), which NNI slices all the same.

    Returns:
        Whether the defect was there and was fixed.
    """
    from nni.nas.oneshot.pytorch.supermodule.operation import MixedBatchNorm2d

    names = ("weight", "bias", "running_mean", "running_var")

    def slice_weights(self: Any, num_features: Any, **_kwargs: Any) -> dict[str, Any]:
        tensors = {name: getattr(self, name) for name in names}
        if isinstance(num_features, dict) or num_features >= self.num_features:  # dict: differentiable strategies
            return tensors
        return {name: None if tensor is None else tensor[:num_features] for name, tensor in tensors.items()}

    probe = SimpleNamespace(num_features=2, **dict.fromkeys(names))
    with contextlib.suppress(TypeError):
        MixedBatchNorm2d.freeze_weight(probe, 1)
        return False
    MixedBatchNorm2d.freeze_weight = slice_weights
    return True


def fix_batch_norm_without_momentum() -> bool:
    """Let a batch norm of mutable width average over all batches (``momentum=None``), as torch's own does.

    Returns:
        Whether the defect was there and was fixed.
    """
    from nni.mutable import Categorical, frozen_context
    from nni.nas.oneshot.pytorch.supermodule.operation import MixedBatchNorm2d

    stock = MixedBatchNorm2d.forward_with_args

    def forward_with_args(self: Any, width: Any, eps: Any, momentum: Any, inputs: torch.Tensor) -> torch.Tensor:
        if momentum is None:
            momentum = 0.0
            if self.training and self.track_running_stats:
                self.num_batches_tracked.add_(1)
                momentum = 1.0 / float(self.num_batches_tracked)
        result: torch.Tensor = stock(self, width, eps, momentum, inputs)
        return result

    with frozen_context():
        probe = MixedBatchNorm2d({"num_features": Categorical([1, 2], label="probe"), "momentum": None})
    with contextlib.suppress(TypeError):
        probe.eval().forward_with_args(1, 1e-5, None, torch.zeros(1, 1, 2, 2))
        return False
    MixedBatchNorm2d.forward_with_args = forward_with_args
    return True


def fix_dropout_of_mutable_attention() -> bool:
    """Let attention of mutable size read its rate of dropout where torch's own does: from its attribute.

    NNI reads what the layer was made with, so that a rate that is changed later, or switched off, goes on as
    before. A rate that is itself a choice is bounded by the attribute, which is its largest candidate at first.

    Returns:
        Whether the defect was there and was fixed.
    """
    from nni.mutable import Categorical, frozen_context
    from nni.nas.oneshot.pytorch.supermodule.operation import MixedMultiHeadAttention

    stock = MixedMultiHeadAttention.forward_with_args

    def forward_with_args(
        self: Any, embed_dim: Any, num_heads: Any, kdim: Any, vdim: Any, dropout: float, *args: Any, **kwargs: Any
    ) -> Any:
        rate = min(dropout, self.dropout) if "dropout" in self.mutable_arguments else self.dropout
        return stock(self, embed_dim, num_heads, kdim, vdim, rate, *args, **kwargs)

    width = Categorical([1, 2], label="probe")
    with frozen_context():
        probe = MixedMultiHeadAttention({"embed_dim": width, "num_heads": 1, "bias": False})
    probe.dropout = 1.0
    if not probe.forward_with_args(1, 1, None, None, 0.0, *[torch.ones(1, 1, 1)] * 3)[0].any():
        return False
    MixedMultiHeadAttention.forward_with_args = forward_with_args
    return True


def fix_padding_of_mutable_kernels() -> bool:
    """Let a convolution of mutable kernel pad by the chosen kernel where it does not pad with zeros.

    With ``padding_mode`` other than ``'zeros'`` NNI pads by what the largest kernel needs: the supernet computes
    larger features than the subnet taken out of it.

    Returns:
        Whether the defect was there and was fixed.
    """
    from nni.mutable import Categorical, frozen_context
    from nni.nas.oneshot.pytorch.supermodule.operation import MixedConv2d

    stock = MixedConv2d.forward_with_args

    def forward_with_args(
        self: Any, inputs: Any, outputs: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, *rest: Any
    ) -> torch.Tensor:
        if self.padding_mode != "zeros" and not any(isinstance(value, dict) for value in (kernel, padding)):
            self._reversed_padding_repeated_twice = _reversed_padding(kernel, padding, dilation)
        result: torch.Tensor = stock(self, inputs, outputs, kernel, stride, padding, dilation, *rest)
        return result

    size = Categorical([1, 3], label="probe")
    fixed = {"in_channels": 1, "out_channels": 1, "padding_mode": "reflect"}
    with frozen_context():
        probe = MixedConv2d({**fixed, "kernel_size": size, "padding": size // 2})
    if probe.forward_with_args(1, 1, 1, 1, 0, 1, 1, torch.zeros(1, 1, 3, 3)).shape[-1] == 3:
        return False
    MixedConv2d.forward_with_args = forward_with_args
    return True


def _reversed_padding(kernel: Any, padding: Any, dilation: Any) -> list[int]:
    """Return how far to pad, last dimension first, left and right, as ``torch.nn.functional.pad`` takes it."""
    kernels, dilations = (value if isinstance(value, tuple) else (value, value) for value in (kernel, dilation))
    if padding == "same":
        totals = [rate * (size - 1) for size, rate in zip(kernels, dilations, strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        amounts = (0, 0) if padding == "valid" else padding if isinstance(padding, tuple) else (padding, padding)
        sides = [(amount, amount) for amount in amounts]
    return [amount for side in reversed(sides) for amount in side]


def fix_slicing_of_layer_norm() -> bool:
    """Let a layer norm of mutable width be sliced without a warning.

    NNI's ``MixedLayerNorm`` indexes its weights with a list of slices, which torch deprecated and announced
    to read as a tensor index; a tuple means what NNI means.

    Returns:
        Whether the defect was there and was fixed.
    """
    from nni.nas.oneshot.pytorch.supermodule.operation import MixedLayerNorm

    def slice_weights(self: Any, normalized_shape: Any, **_kwargs: Any) -> dict[str, Any]:
        if isinstance(normalized_shape, dict):  # Weighted shapes, of differentiable strategies.
            normalized_shape = self.normalized_shape
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        prefix = tuple(slice(min(size)) for size in zip(shape, self.normalized_shape, strict=False))
        weights = {name: getattr(self, name) for name in ("weight", "bias")}
        sliced = {name: weight if weight is None else weight[prefix] for name, weight in weights.items()}
        return {**sliced, "normalized_shape": shape}

    probe = SimpleNamespace(normalized_shape=(2,), weight=_IndexType(), bias=None)
    if MixedLayerNorm._freeze_weight_impl(probe, 1)["weight"] is not list:
        return False
    MixedLayerNorm._freeze_weight_impl = slice_weights
    return True


class _IndexType:
    """Stand for a weight and tell the type it is indexed with."""

    def __getitem__(self, index: Any) -> type:
        return type(index)
