"""Mean gradients of a choice's candidates, apart by what the choice it depends on has chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nni_supernet_ext.core.candidate_parameters import CandidateParameters
from nni_supernet_ext.core.draw import Sample, hashable
from nni_supernet_ext.core.plan import Plan

Unit = tuple[str, int]
"""A choice's label, and the position of one of its candidates."""


class GradientParts:
    """Add up directions of gradients on the device: per candidate, per value it depends on, in several parts.

    Of each candidate a fixed random subset of its weights is looked at. Every gradient is divided by its norm,
    which also takes out loss scales and factors on the loss. Nothing is read from the device before :meth:`grams`.

    Args:
        plan: The run.
        sources: Label of a choice -> label of the choice it depends on.
        parts: Into how many parts the draws of a candidate and a value are dealt out, in turn.
        entries: Weights looked at per candidate.
    """

    def __init__(self, plan: Plan, sources: Mapping[str, str], parts: int, entries: int) -> None:
        candidates = plan.supernet.domain.singles
        self.sources = dict(sources)
        self.parts = parts
        self._entries = entries
        self._positions = {
            label: {hashable(value): place for place, value in enumerate(candidates[label])}
            for label in {*sources, *sources.values()}
        }
        self._weights = CandidateParameters(plan.supernet)
        self._seed = plan.seed
        self._apart = plan.step_every == "subnet"
        self._places: dict[Unit, list[tuple[Any, tuple[Tensor, ...]]]] = {}
        self._before: dict[Unit, Tensor] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all gradients so far."""
        self._sums: dict[Unit, Tensor] = {}
        self._counts: dict[Unit, np.ndarray[Any, np.dtype[np.int64]]] = {}

    def start_draw(self, first: bool) -> None:
        """Note that a draw begins; gradients start anew with the first of a step or with each."""
        if first or self._apart:
            self._before = {}

    def add(self, label: str, sample: Sample) -> None:
        """Take in the last draw's own gradient of a choice's candidate."""
        unit = (label, self._positions[label][hashable(sample[label])])
        if unit not in self._places:
            self._places[unit] = self._choose(unit, sample)
        if not self._places[unit]:
            return
        total = self._gather(unit)
        own = total - self._before[unit] if unit in self._before else total
        self._before[unit] = total
        norm = own.norm()
        usable = torch.isfinite(norm) & (norm > 0)
        direction = torch.where(usable, own / norm, torch.zeros_like(own))
        values = self._positions[self.sources[label]]
        if unit not in self._sums:
            self._sums[unit] = direction.new_zeros(len(values), self.parts, len(direction))
            self._counts[unit] = np.zeros((len(values), self.parts), dtype=np.int64)
        value = values[hashable(sample[self.sources[label]])]
        part = int(self._counts[unit][value].sum()) % self.parts
        self._sums[unit][value, part] += direction
        self._counts[unit][value, part] += 1

    def grams(self, label: str, least: int) -> list[Tensor]:
        """Return inner products of the parts' mean gradients for each of a choice's candidates.

        Args:
            label: The choice.
            least: Candidates of which a part has fewer gradients are left out.

        Returns:
            Matrices of shape ``(values * parts, values * parts)``, float64, on the device.
        """
        result = []
        for unit in sorted(unit for unit in self._sums if unit[0] == label):
            counts = torch.from_numpy(self._counts[unit])
            if int(counts.min()) < least:
                continue
            means = self._sums[unit].double() / counts.to(self._sums[unit].device).unsqueeze(-1)
            flat = means.flatten(0, 1)
            result.append(flat @ flat.T)
        return result

    def state(self) -> list[Any]:
        """Return all sums as plain containers and tensors."""
        return [
            [list(unit), total.clone(), torch.from_numpy(self._counts[unit].copy())]
            for unit, total in self._sums.items()
        ]

    def restore(self, state: Sequence[Any], device: torch.device) -> None:
        """Take over what :meth:`state` returned."""
        self.reset()
        for (label, place), total, counts in state:
            self._sums[label, place] = total.to(device, copy=True)
            self._counts[label, place] = counts.cpu().numpy().copy()

    def _choose(self, unit: Unit, sample: Sample) -> list[tuple[Any, tuple[Tensor, ...]]]:
        """Choose the weights of a candidate to look at, the same in every run of a seed."""
        parameters = [p for p in self._weights.of(unit[0], sample) if p.requires_grad]
        sizes = [p.numel() for p in parameters]
        total = sum(sizes)
        rng = np.random.default_rng([self._seed, unit[1], *unit[0].encode()])
        chosen = np.sort(rng.choice(total, min(self._entries, total), replace=False)) if total else np.array([])
        ends = np.cumsum(sizes)
        places = []
        for parameter, end, size in zip(parameters, ends, sizes, strict=True):
            inside = chosen[(chosen >= end - size) & (chosen < end)] - (end - size)
            if len(inside):
                index = np.unravel_index(inside, tuple(parameter.shape) or (1,))
                places.append((parameter, tuple(torch.from_numpy(i).to(parameter.device) for i in index)))
        return places

    def _gather(self, unit: Unit) -> Tensor:
        found = []
        for parameter, index in self._places[unit]:
            gradient = parameter.grad
            if gradient is None:
                found.append(torch.zeros(len(index[0]), device=parameter.device))
            else:
                # By coordinates: a view of all entries in a row would copy some memory formats.
                found.append(gradient[index if gradient.dim() else ()].float().reshape(-1))
        return torch.cat(found)
