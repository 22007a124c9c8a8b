"""Count the parameters of a subnet from the supernet's structure, without building the subnet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from nni.nas.oneshot.pytorch.supermodule.sampling import (
    PathSamplingCell,
    PathSamplingInput,
    PathSamplingLayer,
    PathSamplingRepeat,
)
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nni_supernet_ext._compat.expressions import Expressions
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.units import Unit, UnitSum
from nni_supernet_ext.errors import SpaceError

Counter = Callable[[Tensor], int]


def count_all(parameter: Tensor) -> int:
    """Count every element: what ``sum(p.numel() for p in network.parameters())`` counts."""
    return parameter.numel()


def count_weights(parameter: Tensor) -> int:
    """Count weights of convolutions and linear layers only (two dimensions and more): no bias, no BN."""
    return parameter.numel() if parameter.dim() >= 2 else 0


def parameter_count(model: ModelSpace, counter: Counter = count_all) -> UnitSum:
    """Build the function that counts a subnet's parameters.

    Args:
        model: Mutated model space.
        counter: What one parameter tensor counts: :func:`count_all` or :func:`count_weights`.

    Returns:
        Function from a sample to the number of parameters of its subnet, all layers that the subnet holds
        included, with the exact extremes over the space.

    Raises:
        SpaceError: A lazy layer does not know its shape yet.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> supernet = toy_supernet()
        >>> sample = {'op': 'conv', 'width': 8}
        >>> counted = parameter_count(supernet.model)(sample)
        >>> counted == sum(p.numel() for p in supernet.extract(sample).parameters())
        True
    """
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise SpaceError(
            f"The space is expected to know the shapes of all weights, but got {len(lazy)} of lazy layers, "
            f"{lazy[0]!r} the first. Give the layers their input size, as in `nn.Linear` for `nn.LazyLinear`."
        )
    return UnitSum(list(_units(model, counter, seen=set())))


def _units(module: nn.Module, counter: Counter, seen: set[int]) -> Iterator[Unit]:
    """Yield one constant unit for the plain parameters and one per supernet module, never descending twice."""
    constant = 0
    stack, counted = [module], set()
    while stack:
        current = stack.pop()
        if isinstance(current, BaseSuperNetModule):
            # A choice under two names becomes two supernet modules around the same candidates.
            content = tuple(map(id, current.children())) or (id(current),)
            if content in counted:
                continue
            counted.add(content)
            labels = tuple(sorted(_labels(current)))
            yield Unit(labels, _counting(current, counter))
            continue
        for parameter in current.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                constant += counter(parameter)
        stack.extend(current.children())
    yield Unit((), lambda sample: constant)


def _labels(module: nn.Module) -> set[str]:
    """Collect the labels that decide what a supernet module computes, nested choices included."""
    return {
        str(label)
        for child in module.modules()
        if isinstance(child, BaseSuperNetModule)
        for label in child.simplify()
    }


def _counting(module: BaseSuperNetModule, counter: Counter) -> Callable[[Sample], float]:
    if isinstance(module, PathSamplingInput):
        return lambda sample: 0
    if isinstance(module, PathSamplingLayer):
        return _layer(module, counter)
    if isinstance(module, PathSamplingRepeat):
        return _repeat(module, counter)
    if isinstance(module, PathSamplingCell):
        return _cell(module, counter)
    if isinstance(module, MixedOperation):
        return _operation(module, counter)
    # A supernet module of the user's own: NNI defines its subnet by freezing.
    return lambda sample: sum(counter(p) for p in module.freeze(dict(sample)).parameters())


def _layer(module: PathSamplingLayer, counter: Counter) -> Callable[[Sample], float]:
    parts = {name: _inner(module[name], counter) for name in module.names}
    label = module.label

    def count(sample: Sample) -> float:
        chosen = sample[label]
        return sum(parts[name](sample) for name in (chosen if isinstance(chosen, list) else [chosen]))

    return count


def _repeat(module: PathSamplingRepeat, counter: Counter) -> Callable[[Sample], float]:
    parts = [_inner(block, counter) for block in module.blocks]
    depth = Expressions().resolver(module.depth_choice)
    return lambda sample: sum(part(sample) for part in parts[: depth(sample)])


def _operation(module: MixedOperation, counter: Counter) -> Callable[[Sample], float]:
    expressions = Expressions()
    mutable = {name: expressions.resolver(value) for name, value in module.mutable_arguments.items()}
    parameters = {name for name, _ in module.named_parameters()}
    known: dict[str, float] = {}

    def count(sample: Sample) -> float:
        chosen = {name: resolve(sample) for name, resolve in mutable.items()}
        key = repr(chosen)
        if key not in known:
            kept = module.freeze_weight(**{**module.init_arguments, **chosen})
            known[key] = sum(counter(t) for name, t in kept.items() if t is not None and name in parameters)
        return known[key]

    return count


def _cell(module: PathSamplingCell, counter: Counter) -> Callable[[Sample], float]:
    prefix, first, n_ops = module.label, module.num_predecessors, module.num_ops_per_node
    fixed = [_inner(part, counter) for part in (module.preprocessor, module.postprocessor) if _is_module(part)]
    inner = {
        (node, source, name): _inner(op, counter)
        for node, ops in enumerate(module.ops, start=first)
        for source, candidates in enumerate(ops)
        for name, op in candidates.items()
    }

    def count(sample: Sample) -> float:
        used = {
            (node, sample[f"{prefix}/input_{node}_{k}"][0], sample[f"{prefix}/op_{node}_{k}"])
            for node in range(first, first + module.num_nodes)
            for k in range(n_ops)
        }
        return sum(part(sample) for part in fixed) + sum(inner[key](sample) for key in used)

    return count


def _is_module(part: Any) -> bool:
    return isinstance(part, nn.Module)


def _inner(module: nn.Module, counter: Counter) -> UnitSum:
    return UnitSum(list(_units(module, counter, seen=set())))
