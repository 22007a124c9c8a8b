"""Norms of one draw's gradients, taken without waiting for the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nni_supernet_ext._compat.loss_scale import loss_scale


class GradientNormProbe:
    """Measure gradient norms of parameters after backward passes; read them all at once, later.

    Each measurement is one fused computation over the tensors asked for, its result stays on the device, and
    nothing waits for it until :meth:`read`. Where the gradients of several draws add up in ``p.grad``,
    :meth:`remember` keeps a copy of what was there before the next draw's backward pass, for the parameters that
    both reach; the difference is that draw's own gradient.

    Example:
        >>> weight = nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> weight.sum().backward()
        >>> probe = GradientNormProbe()
        >>> probe.measure([weight], note='first')
        >>> [(note, norms.round(3).tolist()) for note, norms in probe.read()]
        [('first', [1.414])]
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Any, Tensor]] = []
        self._before: dict[int, Tensor] = {}

    def __len__(self) -> int:
        """Return the number of measurements that were not read yet."""
        return len(self._waiting)

    def remember(self, parameters: Sequence[nn.Parameter]) -> None:
        """Copy the gradients that the next backward pass will add to; an empty sequence forgets them."""
        present = [p for p in parameters if p.grad is not None]
        with torch.no_grad():
            gradients: list[Any] = [p.grad for p in present]
            copies = torch._foreach_mul(gradients, 1.0) if gradients else ()
        self._before = {id(p): copy for p, copy in zip(present, copies, strict=True)}

    def measure(
        self, parameters: Sequence[nn.Parameter], note: Any, trainer: Any = None, factor: float = 1.0
    ) -> None:
        """Take the norms of the parameters' gradients, each on its own.

        Args:
            parameters: Parameters, all with a gradient.
            note: What to hand back with the norms.
            trainer: Lightning trainer, where the gradients may still carry its loss scale.
            factor: Known factor on the gradients, divided out.
        """
        if not parameters:
            return
        with torch.no_grad():
            norms = torch.stack(torch._foreach_norm(self._own(parameters)))
            scale = loss_scale(trainer) if trainer is not None else None
            if scale is not None:
                norms = norms / scale
            if factor != 1.0:
                norms = norms / factor
        self._waiting.append((note, norms))

    def read(self) -> list[tuple[Any, Any]]:
        """Return all measurements since the last reading: note and norms (float64 array), and forget them."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        values = torch.cat([norms.double() for _, norms in waiting]).cpu().numpy()
        ends = torch.tensor([len(norms) for _, norms in waiting]).cumsum(0).tolist()
        starts = [0, *ends[:-1]]
        return [(note, values[start:end]) for (note, _), start, end in zip(waiting, starts, ends, strict=True)]

    def _own(self, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        gradients: list[Any] = [p.grad for p in parameters]
        shared = [i for i, p in enumerate(parameters) if id(p) in self._before]
        if shared:
            earlier: Mapping[int, Tensor] = self._before
            own = torch._foreach_sub([gradients[i] for i in shared], [earlier[id(parameters[i])] for i in shared])
            for i, gradient in zip(shared, own, strict=True):
                gradients[i] = gradient
        return gradients
