"""Activate a subnet of a mutated model space in place, much faster than NNI's own ``resample``.

``resample(memo=sample)`` walks the module tree and validates and evaluates every symbolic expression again
for every module. Which labels a module depends on never changes, so it is found once; and an expression has
few distinct values, so they are remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from nni.nas.oneshot.pytorch.supermodule.sampling import (
    MixedOpPathSamplingPolicy,
    PathSamplingCell,
    PathSamplingInput,
    PathSamplingLayer,
    PathSamplingRepeat,
)
from torch import nn

from nni_supernet_ext._compat.expressions import Expressions
from nni_supernet_ext.errors import SpaceError

__all__ = ["compile_activation"]

Sample = Mapping[str, Any]
# What the owner's `_sampled` has to become under a sample.
Resolver = Callable[[Sample], Any]


def compile_activation(model: nn.Module) -> Callable[[Sample], None]:
    """Build the function that makes a supernet compute one of its subnets from the next forward pass on.

    The result of a call equals ``module.resample(memo=dict(sample))`` on every supernet module. Modules of
    unknown types, and subclasses with a ``resample`` of their own, are resampled by that very call. The
    function stays valid as long as the model's modules are not exchanged; a copy of the model needs its own.

    Args:
        model: Model space after a one-shot strategy's ``mutate_model``.

    Returns:
        A function of the sample (label -> chosen value, for every label of the space). Activating the same
        sample again only restores what was resolved before. It raises `SpaceError` where a label is missing.

    Example:
        >>> import torch
        >>> from nni.nas.nn.pytorch import LayerChoice, ModelSpace
        >>> from nni.nas.strategy import RandomOneShot
        >>> class Space(ModelSpace):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.op = LayerChoice([nn.Identity(), nn.Flatten()], label="op")
        ...     def forward(self, x):
        ...         return self.op(x)
        >>> model = RandomOneShot().mutate_model(Space())
        >>> activate = compile_activation(model)
        >>> activate({"op": 1})
        >>> model(torch.ones(1, 2, 3)).shape
        torch.Size([1, 6])
    """
    modules = [module for module in model.modules() if isinstance(module, BaseSuperNetModule)]
    return _Activation(modules)


class _Activation:
    """The compiled form: attribute dictionaries to write to, and modules to leave to NNI."""

    def __init__(self, modules: list[BaseSuperNetModule]) -> None:
        expressions = Expressions()
        labels = [str.__str__(label) for module in modules for label in module.simplify()]
        self.labels = list(dict.fromkeys(labels))
        self.known: list[tuple[dict[str, Any], str, Resolver]] = []
        self.unknown: list[BaseSuperNetModule] = []
        for module in modules:
            own = getattr(module, "activation_targets", None)
            if own is not None:
                # The module says itself which of its attributes a sample decides, and how.
                self.known += [(module.__dict__, name, resolver) for name, resolver in own().items()]
                continue
            owner, resolver = _owner_and_resolver(module, expressions)
            if resolver is None:
                self.unknown.append(module)
            else:
                # nn.Module.__setattr__ looks for parameters and submodules first; `_sampled` is neither.
                self.known.append((owner.__dict__, "_sampled", resolver))
        self.last: Sample | None = None
        self.last_content: dict[str, Any] = {}
        self.resolved: list[Any] = []

    def __call__(self, sample: Sample) -> None:
        # Not only the identity: the caller may have changed the dictionary. And the modules are written even
        # then, because somebody else may have resampled them.
        if sample is not self.last or self.last_content != sample:
            self._resolve(sample)
        for (attributes, name, _), value in zip(self.known, self.resolved, strict=True):
            attributes[name] = value
        for module in self.unknown:
            module.resample(memo=dict(sample))

    def _resolve(self, sample: Sample) -> None:
        missing = [label for label in self.labels if label not in sample]
        if missing:
            raise SpaceError(
                f"Argument `sample` is expected to have a value for every label, but got none for {missing}. "
                "Add the missing labels; the space's `simplify()` lists them all."
            )
        self.last = None
        self.resolved = [resolver(sample) for _, _, resolver in self.known]
        self.last, self.last_content = sample, dict(sample)


def _owner_and_resolver(module: BaseSuperNetModule, expressions: Expressions) -> tuple[Any, Resolver | None]:
    """Return the object that keeps `_sampled` and how to find its value (None for an unknown type)."""
    # Compared by method: a subclass that changes only the reduction is as good as its base.
    resample = type(module).resample
    if resample in (PathSamplingLayer.resample, PathSamplingInput.resample):
        label = str.__str__(module.label)
        return module, lambda sample: sample[label]
    if resample is PathSamplingRepeat.resample:
        return module, expressions.resolver(module.depth_choice)
    if resample is PathSamplingCell.resample:
        return module, _cell_resolver(module)
    if resample is MixedOperation.resample:
        policy = module.sampling_policy
        if type(policy).resample is MixedOpPathSamplingPolicy.resample:
            return policy, _operation_resolver(module, expressions)
    return module, None


def _operation_resolver(operation: MixedOperation, expressions: Expressions) -> Resolver:
    arguments = [(name, expressions.resolver(value)) for name, value in operation.mutable_arguments.items()]
    return lambda sample: {name: resolver(sample) for name, resolver in arguments}


def _cell_resolver(cell: PathSamplingCell) -> Resolver:
    labels = list(cell.simplify())

    def resolve(sample: Sample) -> dict[str, Any]:
        for label in labels:
            if isinstance(sample[label], list) and len(sample[label]) > 1:
                raise SpaceError(
                    f"Argument `sample` is expected to have one input at label {str(label)!r} of a cell, "
                    f"but got {sample[label]}. Give a list with one index."
                )
        return {label: sample[label] for label in labels}

    return resolve
