"""Read off the model which layer choices feed which, by running it and following the gradient's way back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingLayer
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.functional._module_modes import preserved_modes
from nni_supernet_ext.functional.batch_norm import preserved_batch_norm

Execution = tuple[str, int]
"""Label of a layer choice, and how many layers of that label have run before it."""

_RANDOM_SAMPLES = 4


def graph_dependencies(supernet: Supernet, inputs: Tensor) -> dict[str, tuple[str, ...]]:
    """Find for every layer choice the layer choices whose outputs reach its input with no other in between.

    The model runs on a few subnets, one per candidate and some random ones, because a candidate may cut a
    connection. Where cells repeat the same labels, the n-th layer of a label is compared with the n-th ones of the
    others only, so that a cell depends on itself and not on the cell before.

    Args:
        supernet: The supernet. Its weights, statistics, mode and active subnet stay as they are.
        inputs: Example input, shape ``(N, ...)``.

    Returns:
        Label -> labels it depends on, in the order in which they run.
    """
    found: dict[str, dict[str, None]] = {}
    order: dict[str, None] = {}
    with _undisturbed(supernet):
        for sample in _samples(supernet):
            for (label, number), sources in _run(supernet, sample, inputs).items():
                order.setdefault(label)
                own = found.setdefault(label, {})
                own.update({source: None for source, n in sources if n == number and source != label})
    rank = {label: position for position, label in enumerate(order)}
    return {label: tuple(sorted(sources, key=rank.__getitem__)) for label, sources in found.items() if sources}


def _samples(supernet: Supernet) -> Iterator[Sample]:
    domain, rng = supernet.domain, np.random.default_rng(0)
    base = domain.random(rng)
    for position in range(max(map(len, domain.candidates.values()), default=0)):
        uniform = {label: values[position % len(values)] for label, values in domain.candidates.items()}
        sample = {**base, **uniform}
        if domain.satisfies_constraints(sample):
            yield sample
    for _ in range(_RANDOM_SAMPLES):
        yield domain.random(rng)


@contextmanager
def _undisturbed(supernet: Supernet) -> Iterator[None]:
    model, active = supernet.model, supernet.active
    try:
        with preserved_modes(model), isolate_rng(), preserved_batch_norm(model):
            model.eval()
            yield
    finally:
        if active is not None:
            supernet.activate(active)


def _run(supernet: Supernet, sample: Sample, inputs: Tensor) -> dict[Execution, set[Execution]]:
    """Return for every execution of a layer choice the nearest executions before it."""
    counts: Counter[str] = Counter()
    found: dict[Execution, set[Execution]] = {}

    def before(layer: nn.Module, args: Any, kwargs: Any) -> None:
        label = str.__str__(layer.label)
        found[label, counts[label]] = _nearest([args, kwargs])

    def after(layer: nn.Module, args: Any, output: Any) -> Any:
        label = str.__str__(layer.label)
        execution = (label, counts[label])
        counts[label] += 1
        return tree_map(lambda value: _marked(value, execution), output)

    supernet.activate(sample)
    with ExitStack() as hooks, torch.enable_grad():
        for layer in supernet.model.modules():
            if isinstance(layer, PathSamplingLayer):
                for handle in (
                    layer.register_forward_pre_hook(before, with_kwargs=True),
                    layer.register_forward_hook(after),
                ):
                    hooks.callback(handle.remove)
        copied = inputs.detach().clone()
        supernet.model(copied.requires_grad_() if copied.is_floating_point() else copied)
    return found


class _Mark(torch.autograd.Function):
    """Pass a tensor on and leave the name of its origin in the graph."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, origin: Execution) -> Tensor:
        ctx.origin = origin
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _marked(value: Any, origin: Execution) -> Any:
    return _Mark.apply(value, origin) if isinstance(value, Tensor) and value.requires_grad else value


def _nearest(inputs: Any) -> set[Execution]:
    """Follow the graph back from the inputs to the first marks."""
    waiting = [value.grad_fn for value in tree_leaves(inputs) if isinstance(value, Tensor)]
    seen: set[Any] = set()
    found: set[Execution] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        origin = getattr(node, "origin", None)
        if isinstance(origin, tuple):
            found.add(origin)
        else:
            waiting.extend(following for following, _ in node.next_functions)
    return found
