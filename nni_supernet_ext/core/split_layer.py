"""A layer choice whose candidates have several copies of their weights, one of which belongs to a sample."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from nni.nas.nn.pytorch.base import recursive_freeze
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingLayer
from torch import Tensor, nn

from nni_supernet_ext.core.draw import Sample, describe_sample, hashable
from nni_supernet_ext.errors import SpaceError
from nni_supernet_ext.functional.conditional_weights import Key, copy_pairs, weight_keys

ParameterPair = tuple[nn.Parameter, nn.Parameter]
_CHILD = "copies"


class SplitLayer(PathSamplingLayer):
    """Compute a candidate with the copy of its weights that belongs to what other choices have chosen.

    Made from a supernet's layer by :func:`split_layer`. The candidates themselves are the first copies; all
    others are children too, so they move, train and are saved with the model, used or not. How many of the
    dependencies count is the layer's ``depth``, part of its state dict: at 0 it is the layer it was made from.

    Attributes:
        depends: Labels of the choices that the weights depend on, in the order in which they come to count.
        depth: How many of them count now.
        split_names: Candidates with parameters; the others have nothing to split.
    """

    depends: tuple[str, ...]
    depth: int
    split_names: tuple[Any, ...]
    copies: nn.ModuleDict

    def arrange(self, depends: Mapping[str, Sequence[Any]]) -> None:
        """Make all copies; draws no random number and changes no output."""
        if _CHILD in map(str, self.names):
            raise SpaceError(
                f"The candidates of {str(self.label)!r} are expected to have other names than {_CHILD!r}, but got "
                f"{self.names}. Rename that candidate."
            )
        self.depends = tuple(depends)
        self.depth = 0
        self._context: tuple[Any, ...] | None = None
        self._values = [[hashable(value) for value in values] for values in depends.values()]
        self.split_names = tuple(name for name in self.names if any(True for _ in self[name].parameters()))
        self.add_module(_CHILD, nn.ModuleDict())
        keys = weight_keys(self._sizes, len(self.depends))[1:]
        memos: dict[Key, dict[int, Any]] = {key: {} for key in keys}  # What candidates share, their copies share.
        for name in self.split_names:
            for key in keys:
                self.copies[_copy_name(name, key)] = copy.deepcopy(self[name], memos[key])
        self._places = [self._table(depth) for depth in range(len(self.depends) + 1)]

    @property
    def _sizes(self) -> list[int]:
        return [len(values) for values in self._values]

    def _table(self, depth: int) -> dict[tuple[Any, ...], str | None]:
        """Map (candidate, what the first dependencies chose) to the copy's name, None for the original."""
        return {
            (name, *(values[k] for values, k in zip(self._values, key[:depth], strict=False))): (
                _copy_name(name, key) if any(key) else None
            )
            for name in self.split_names
            for key in weight_keys(self._sizes, depth)
        }

    # What NNI and the activation call

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Choose the candidate as the layer did before, and remember what it depends on."""
        result: dict[str, Any] = super().resample(memo)
        self._context = self.context_of(memo)
        return result

    def activation_targets(self) -> dict[str, Callable[[Sample], Any]]:
        """Name the attributes that a sample decides, each with the function that does."""
        label = str.__str__(self.label)
        return {"_sampled": lambda sample: sample[label], "_context": self.context_of}

    def context_of(self, sample: Sample) -> tuple[Any, ...] | None:
        """Return what a sample chooses at the dependencies, None where it does not say."""
        if any(label not in sample for label in self.depends):
            return None
        return tuple(hashable(sample[label]) for label in self.depends)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the sampled candidate with its copy; several sampled candidates are summed as in NNI's layer."""
        if self._sampled is None:
            raise RuntimeError("A subnet is expected to be active before the forward pass. Call `activate` first.")
        names = self._sampled if isinstance(self._sampled, list) else [self._sampled]
        results = [self.copy_for(name, self._context)(*args, **kwargs) for name in names]
        return self._reduction(results, names)

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """Return the candidate of a sample with the copy that belongs to it, and no other."""
        self.validate(sample)
        chosen = self.copy_for(self.choice.freeze(sample), self.context_of(sample))
        frozen: nn.Module = recursive_freeze(chosen, sample)[0]
        return frozen

    def get_extra_state(self) -> Tensor:
        """Put the depth into the state dict, as a tensor."""
        return torch.tensor(self.depth)

    def set_extra_state(self, state: Any) -> None:
        """Take the depth from a state dict."""
        self.depth = int(state)

    # Copies

    def copy_for(self, name: Any, context: tuple[Any, ...] | None) -> nn.Module:
        """Return the module that computes a candidate.

        Args:
            name: Candidate.
            context: What the choices in ``depends`` have chosen.

        Raises:
            SpaceError: The context is missing or unknown, and matters.
        """
        if self.depth == 0 or name not in self.split_names:
            return self[name]
        key = (name, *(context or ())[: self.depth])
        try:
            place = self._places[self.depth][key]
        except KeyError:
            raise SpaceError(
                f"Argument `sample` is expected to hold one candidate for each of {list(self.depends)}, which the "
                f"weights of {str(self.label)!r} depend on, but got {context}. Activate a complete sample."
            ) from None
        return self[name] if place is None else self.copies[place]

    def chosen(self, sample: Sample) -> nn.Module:
        """Return the module that computes a sample's candidate."""
        label = str.__str__(self.label)
        if label not in sample:
            raise SpaceError(
                f"Argument `sample` is expected to have a value for {label!r}, but got {describe_sample(sample)}. "
                "Add it."
            )
        return self.copy_for(sample[label], self.context_of(sample))

    def weight_sets(self, depth: int | None = None) -> dict[Any, int]:
        """Return the number of weight sets of each candidate with parameters, by default at the present depth."""
        keys = weight_keys(self._sizes, self.depth if depth is None else depth)
        return {name: len(keys) for name in self.split_names}

    def deepen(self) -> list[ParameterPair]:
        """Let one more dependency count: every copy that comes into use becomes equal to the one used so far.

        Returns:
            Pairs of parameters: the one used so far, the one that is now a copy of it.
        """
        self.depth += 1
        pairs = [
            pair
            for name in self.split_names
            for source, target in copy_pairs(self._sizes, self.depth)
            for pair in copy_module_state(self._at(name, source), self._at(name, target))
        ]
        return pairs

    def linked(self) -> list[ParameterPair]:
        """Return pairs of a candidate's own parameter and one of its copies in use, for all copies in use."""
        return [
            pair
            for name in self.split_names
            for key in weight_keys(self._sizes, self.depth)[1:]
            for pair in zip(self[name].parameters(), self._at(name, key).parameters(), strict=True)
        ]

    def _at(self, name: Any, key: Key) -> nn.Module:
        return self.copies[_copy_name(name, key)] if any(key) else self[name]


def split_layer(layer: PathSamplingLayer, depends: Mapping[str, Sequence[Any]]) -> None:
    """Turn a layer of a supernet into a :class:`SplitLayer`, in place: whoever holds the layer still does.

    Args:
        layer: Layer choice of a path-sampling supernet, of exactly that type.
        depends: Label of each choice its weights will depend on -> that choice's candidates, in the order in which
            they will come to count.

    Example:
        >>> from nni_supernet_ext.testing import ToyCellSpace, toy_supernet
        >>> layer = toy_supernet(ToyCellSpace()).model.cells[0].second
        >>> split_layer(layer, {'edge_0': ['conv', 'point', 'skip']})
        >>> layer.weight_sets(), layer.weight_sets(depth=1)
        ({'conv': 1, 'point': 1}, {'conv': 3, 'point': 3})
    """
    layer.__class__ = SplitLayer
    layer.arrange(depends)


def split_layers(model: nn.Module) -> list[SplitLayer]:
    """Return all split layers of a model."""
    return [module for module in model.modules() if isinstance(module, SplitLayer)]


@torch.no_grad()
def copy_module_state(source: nn.Module, target: nn.Module) -> list[ParameterPair]:
    """Make a module equal to another one of the same build: parameters, buffers, depths of splits inside.

    Returns:
        The pairs of parameters.
    """
    pairs = list(zip(source.parameters(), target.parameters(), strict=True))
    for mine, theirs in (*pairs, *zip(source.buffers(), target.buffers(), strict=True)):
        theirs.copy_(mine)
    for mine_inside, theirs_inside in zip(split_layers(source), split_layers(target), strict=True):
        theirs_inside.depth = mine_inside.depth
    return pairs


def _copy_name(name: Any, key: Key) -> str:
    return f"{name}|{','.join(map(str, key))}"
