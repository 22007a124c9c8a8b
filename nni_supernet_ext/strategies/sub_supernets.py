"""Several sub-supernets of one space: which of them owns a sample, and their weights."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nni_supernet_ext._compat.samples import plain_sample
from nni_supernet_ext.core.checkpoint import check_shapes
from nni_supernet_ext.core.draw import Sample, describe_sample
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.slots import WeightStore
from nni_supernet_ext.core.stored import stored_bytes, stored_shapes
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.errors import CheckpointError, SpaceError

Region = Mapping[str, Sequence[Any]]
"""The part of a space that a sub-supernet covers: label of each split choice -> the candidates it keeps."""


@dataclass(frozen=True)
class SubSupernet:
    """One trained sub-supernet.

    Attributes:
        index: Its number, from 0.
        region: Label of each split choice -> candidates that belong to it.
        weights: Parameters and buffers of the whole supernet after its training.
        results: Validated subnet's name -> metric -> value at the end of its training.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> part = SubSupernet(0, {'op': ['conv', 'skip']}, toy_supernet().model.state_dict())
        >>> part.owns({'op': 'skip', 'width': 4}), part.owns({'op': 'linear', 'width': 4})
        (True, False)
    """

    index: int
    region: Region
    weights: Mapping[str, Tensor]
    results: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def owns(self, sample: Sample) -> bool:
        """Tell whether a sample lies in the region."""
        return all(sample[label] in candidates for label, candidates in self.region.items())


class SubSupernetWeights(WeightStore):
    """Activate each sample with the weights of the sub-supernet that owns it.

    For search and evaluation after few-shot training: ``SupernetEvolution(weights=few_shot.weights)``. The
    supernet's own tensors are overwritten when the owner changes; the stored weights never change.

    Args:
        parts: Trained sub-supernets with disjoint regions.

    Attributes:
        parts: The sub-supernets in order.

    Raises:
        SpaceError: A sample that no sub-supernet owns is activated.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> supernet, other = toy_supernet(seed=0), toy_supernet(seed=1)
        >>> store = SubSupernetWeights([
        ...     SubSupernet(0, {'op': ['conv']}, dict(supernet.model.state_dict())),
        ...     SubSupernet(1, {'op': ['linear', 'skip']}, dict(other.model.state_dict())),
        ... ])
        >>> store.owner({'op': 'skip', 'width': 4}).index
        1

    Reference:
        Zhao et al., "Few-shot Neural Architecture Search", ICML 2021: an architecture is evaluated in the
        sub-supernet that contains it.
    """

    def __init__(self, parts: Iterable[SubSupernet]) -> None:
        self.parts = tuple(parts)
        self._loaded: tuple[int, int, list[Tensor], int] | None = None

    @classmethod
    def load(cls, folder: str | Path) -> SubSupernetWeights:
        """Read the sub-supernets that few-shot training has finished in a folder.

        Args:
            folder: ``checkpoint_dir`` of the training. Several processes may have trained into it.

        Raises:
            CheckpointError: The folder holds no finished sub-supernet.
        """
        paths = sorted(Path(folder).glob("part-*.pt"))
        if not paths:
            raise CheckpointError(
                f"Argument `folder` is expected to hold finished sub-supernets, but got none in {folder}. Train "
                "with FewShotStrategy and this `checkpoint_dir` first."
            )
        return cls(sorted((read_part(path) for path in paths), key=lambda part: part.index))

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse training: activating a sample would overwrite what was trained."""
        yield (
            "Slot `weights` is expected to hold weights that can be trained, but got SubSupernetWeights. Use "
            "FewShotStrategy for training; pass these weights to the search, SupernetEvolution(weights=...)."
        )

    def owner(self, sample: Sample) -> SubSupernet:
        """Return the sub-supernet that owns a sample.

        Raises:
            SpaceError: None does.
        """
        for part in self.parts:
            if part.owns(sample):
                return part
        raise SpaceError(
            f"Argument `sample` is expected to belong to one of {len(self.parts)} sub-supernets, but got "
            f"{describe_sample(sample)}, which none owns. Restrict the search with `constraint=weights.owns`, or "
            "train the missing sub-supernet."
        )

    def owns(self, sample: Sample) -> bool:
        """Tell whether some sub-supernet owns a sample: a ``constraint`` for a search."""
        return any(part.owns(sample) for part in self.parts)

    def activate(self, supernet: Supernet, sample: Sample) -> None:
        """Activate a sample in place, after loading its owner's weights where another's are in."""
        part = self.owner(sample)
        if not self._is_loaded(supernet.model, part):
            load_weights(supernet.model, part.weights)
            parameters = list(supernet.model.parameters())
            self._loaded = (part.index, id(supernet.model), parameters, _version(parameters))
        supernet.activate(sample)

    def digest(self, supernet: Supernet) -> str:
        """Return the SHA-256 of every part's number, region and weights; the supernet's own do not matter."""
        digest = hashlib.sha256()
        for part in self.parts:
            region = json.dumps(plain_sample(part.region), sort_keys=True)
            digest.update(f"{part.index} {region}".encode())
            for name, value in part.weights.items():
                kind = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else ""
                digest.update(f"{name} {kind}".encode() + stored_bytes(value))
        return digest.hexdigest()

    def _is_loaded(self, model: torch.nn.Module, part: SubSupernet) -> bool:
        """Tell whether a part's weights are in the model, and nobody has written to them since."""
        if self._loaded is None:
            return False
        index, owner, parameters, version = self._loaded
        return index == part.index and owner == id(model) and version == _version(parameters)


def _version(parameters: list[Tensor]) -> int:
    """Return a number that grows with every write to one of the tensors."""
    return sum(parameter._version for parameter in parameters)


@torch.no_grad()
def load_weights(model: torch.nn.Module, weights: Mapping[str, Any]) -> None:
    """Copy stored parameters and buffers into a model, in place, between devices where need be.

    Raises:
        CheckpointError: They are of another network.
    """
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        stored = weights.get(name)
        if isinstance(stored, Tensor) and stored.dtype != tensor.dtype:
            tensor.data = tensor.to(stored.dtype)  # A training in that precision has converted the model.
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        check_network(model, weights)
        raise


def check_network(model: torch.nn.Module, weights: Mapping[str, Any]) -> None:
    """Refuse stored weights of another network than a model."""
    check_shapes(stored_shapes(weights), stored_shapes(model.state_dict()))


def copied_weights(model: torch.nn.Module) -> dict[str, Any]:
    """Return copies of all parameters and buffers of a model, on its device."""
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in model.state_dict().items()
    }


def read_part(path: Path) -> SubSupernet:
    """Read one finished sub-supernet, on the CPU."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    return SubSupernet(int(path.stem.removeprefix("part-")), saved["region"], saved["weights"], saved["results"])
