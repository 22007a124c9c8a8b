"""Count what would make the host wait for an accelerator, on a CPU."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

_READS = {"aten::item", "aten::is_nonzero", "aten::nonzero", "aten::masked_select", "aten::_unique2"}


def device_reads(work: Callable[[], object]) -> int:
    """Count what reads values of tensors, or makes shapes of them, while some work runs in this process.

    ``.cpu()``, ``.numpy()`` and ``.tolist()`` do not show: on a CPU they are no operation.

    Args:
        work: What to run.

    Returns:
        Number of operations such as ``.item()``, ``float()`` or ``bool()`` of a tensor, and ``nonzero()``.

    Example:
        >>> import torch
        >>> device_reads(lambda: [float(value) for value in torch.zeros(3)])
        3
    """
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    return sum(event.name in _READS for event in profiled.events())
