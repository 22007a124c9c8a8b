"""Which weights a backward pass reached, where a gradient of zeros does not tell."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.utils.hooks import RemovableHandle


class GradientArrivals:
    """Note which tensors gradients arrive at, by a hook on each.

    Where gradients are zeroed and not dropped, a weight that was reached once has a gradient for ever.

    Example:
        >>> import torch
        >>> used, idle = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
        >>> arrivals = GradientArrivals()
        >>> arrivals.watch([used, idle])
        >>> used.sum().backward()
        >>> used in arrivals, idle in arrivals
        (True, False)
        >>> arrivals.close()
    """

    def __init__(self) -> None:
        self._watched: dict[int, tuple[Tensor, RemovableHandle]] = {}
        self._reached: set[int] = set()

    def __contains__(self, tensor: Tensor) -> bool:
        """Tell whether a gradient arrived at a watched tensor since the last :meth:`forget`."""
        return id(tensor) in self._reached

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """Watch those of the tensors that are trained and not watched yet."""
        for tensor in tensors:
            if tensor.requires_grad and id(tensor) not in self._watched:
                handle = tensor.register_post_accumulate_grad_hook(self._note)
                self._watched[id(tensor)] = (tensor, handle)

    def forget(self) -> None:
        """Forget what arrived so far."""
        self._reached.clear()

    def close(self) -> None:
        """Take all hooks away."""
        for _, handle in self._watched.values():
            handle.remove()
        self._watched.clear()
        self.forget()

    def _note(self, tensor: Tensor) -> None:
        self._reached.add(id(tensor))
