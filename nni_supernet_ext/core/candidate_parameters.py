"""Which weights each candidate of each choice computes with, found once from the supernet's structure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from nni.nas.oneshot.pytorch.supermodule.sampling import (
    PathSamplingCell,
    PathSamplingLayer,
    PathSamplingRepeat,
)
from torch import nn

from nni_supernet_ext.core.draw import Sample, hashable
from nni_supernet_ext.core.split_layer import SplitLayer, split_layers
from nni_supernet_ext.core.supernet import Supernet

Parameters = tuple[nn.Parameter, ...]


class CandidateParameters:
    """Look up the weights behind the candidates of a sample without walking over modules.

    A layer choice selects its candidate's weights, in every place that shares the label; a cell's operation is
    selected together with its input; a repeat's depth selects the first blocks; a width, kernel size or the like
    sizes a module, so each of its candidates computes with (a slice of) that module's weights.

    Args:
        supernet: The supernet to look into.

    Attributes:
        labels: Choices among finitely many candidates of which at least one computes with weights.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> weights = CandidateParameters(toy_supernet())
        >>> [len(weights.of('op', {'op': op, 'width': 4})) for op in ('conv', 'linear', 'skip')]
        [1, 2, 0]
    """

    def __init__(self, supernet: Supernet) -> None:
        self._tables: dict[str, tuple[tuple[str, ...], dict[tuple[Any, ...], Parameters]]] = {}
        candidates = supernet.domain.candidates
        for label, depends, key, parameters in _entries(supernet.model):
            if label not in candidates:
                continue
            known_depends, table = self._tables.setdefault(label, (depends, {}))
            if known_depends == depends:
                table[key] = tuple(dict.fromkeys((*table.get(key, ()), *parameters)))
        self._split: dict[str, list[SplitLayer]] = {}
        for layer in split_layers(supernet.model):
            self._split.setdefault(str.__str__(layer.label), []).append(layer)
        self._of_split: dict[tuple[Any, ...], Parameters] = {}
        self._sized(supernet)
        self.labels = tuple(label for label in candidates if any(self._tables.get(label, ((), {}))[1].values()))

    def of(self, label: str, sample: Sample) -> Parameters:
        """Return the weights that a choice's candidate in the sample computes with, each once.

        Args:
            label: One of :attr:`labels`.
            sample: Architecture.

        Returns:
            Parameters, none for a candidate without weights.
        """
        if label in self._split:
            return self._of_copies(label, sample)
        depends, table = self._tables[label]
        return table.get(tuple(hashable(sample[name]) for name in depends), ())

    def _of_copies(self, label: str, sample: Sample) -> Parameters:
        """Return the weights of the copies that the sample uses now; all layers of a label are equally deep."""
        layers = self._split[label]
        key = (label, layers[0].depth, sample[label], layers[0].context_of(sample))
        found = self._of_split.get(key)
        if found is None:
            parameters = (p for layer in layers for p in layer.chosen(sample).parameters())
            found = self._of_split[key] = tuple(dict.fromkeys(parameters))
        return found

    def _sized(self, supernet: Supernet) -> None:
        """Add the choices that size modules: every candidate computes with the same tensors."""
        for module in supernet.model.modules():
            if not isinstance(module, MixedOperation):
                continue
            own = tuple(module.parameters())
            for label in map(str, module.simplify()):
                for value in supernet.domain.candidates.get(label, ()):
                    depends, table = self._tables.setdefault(label, ((label,), {}))
                    if depends == (label,):
                        table[(value,)] = tuple(dict.fromkeys((*table.get((value,), ()), *own)))


Entry = tuple[str, tuple[str, ...], tuple[Any, ...], Parameters]


def _entries(model: nn.Module) -> Iterator[Entry]:
    for module in model.modules():
        if isinstance(module, PathSamplingLayer):
            label = str.__str__(module.label)
            for name in module.names:
                yield label, (label,), (name,), tuple(module[name].parameters())
        elif isinstance(module, PathSamplingCell):
            yield from _cell_entries(module)
        elif isinstance(module, PathSamplingRepeat):
            yield from _repeat_entries(module)


def _cell_entries(cell: PathSamplingCell) -> Iterator[Entry]:
    first = cell.num_predecessors
    for node, ops in enumerate(cell.ops, start=first):
        for k in range(cell.num_ops_per_node):
            source_label, op_label = f"{cell.label}/input_{node}_{k}", f"{cell.label}/op_{node}_{k}"
            for source, candidates in enumerate(ops):
                for name, op in candidates.items():
                    yield op_label, (source_label, op_label), ((source,), name), tuple(op.parameters())


def _repeat_entries(repeat: PathSamplingRepeat) -> Iterator[Entry]:
    depth: Any = repeat.depth_choice
    labels = [str(label) for label in depth.simplify()]
    if len(labels) != 1:
        return
    for value in next(iter(depth.simplify().values())).values:
        count = depth.freeze({labels[0]: value})
        parameters = tuple(p for block in list(repeat.blocks)[:count] for p in block.parameters())
        yield labels[0], (labels[0],), (value,), parameters
