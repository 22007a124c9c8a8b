"""Reduce what a step logs over an epoch, as Lightning does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from nni_supernet_ext.errors import ConfigurationError

_REDUCTIONS: dict[Any, str] = {torch.mean: "mean", torch.sum: "sum", torch.max: "max", torch.min: "min"}
_COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": torch.add,
    "sum": torch.add,
    "max": torch.maximum,
    "min": torch.minimum,
}


class EpochMetrics:
    """Collect logged values; each metric has its own weight, and values stay on the device.

    Args:
        device: Where to add up.

    Example:
        >>> metrics = EpochMetrics(torch.device("cpu"))
        >>> metrics.size = 3  # examples of the batch
        >>> metrics.log("val_acc", 1.0)
        >>> metrics.log("val_loss", 2.0, batch_size=1)
        >>> metrics.log("val_loss", 4.0)
        >>> metrics.compute()
        {'val_acc': 1.0, 'val_loss': 3.5}
    """

    def __init__(self, device: torch.device) -> None:
        self.size = 1
        self._device = device
        self._totals: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}
        self._objects: dict[str, Metric] = {}

    def log(self, name: str, value: Any, *args: Any, **settings: Any) -> None:
        """Take the place of ``LightningModule.log``: of its settings ``batch_size`` and ``reduce_fx`` matter here.

        Raises:
            ConfigurationError: A reduction that Lightning does not know either.
        """
        if isinstance(value, Metric):
            self._objects[name] = value
            return
        asked = settings.get("reduce_fx", "mean")
        reduction = _REDUCTIONS.get(asked, asked)
        if reduction not in _COMBINE:
            raise ConfigurationError(
                f"Argument `reduce_fx` of `log({name!r}, ...)` is expected to be one of {tuple(_COMBINE)}, but got "
                f"{asked!r}. Log a torchmetrics object where another reduction is needed."
            )
        value = torch.as_tensor(value, dtype=torch.float64, device=self._device).detach()
        size = settings.get("batch_size")
        weight = (self.size if size is None else size) if reduction == "mean" else 1
        value = value * weight
        before = self._totals.get(name)
        self._totals[name] = value if before is None else _COMBINE[reduction](before, value)
        self._weights[name] = self._weights.get(name, 0) + weight if reduction == "mean" else 1

    def current(self) -> dict[str, Tensor]:
        """Return every metric's value so far, without waiting for the device."""
        values: dict[str, Tensor] = {name: total / self._weights[name] for name, total in self._totals.items()}
        return values | {name: metric.compute() for name, metric in self._objects.items()}

    def compute(self) -> dict[str, float]:
        """Return every metric's value, waiting for the device once, and reset the metric objects."""
        results: dict[str, float] = {}
        if self._totals:
            weights = torch.tensor(list(self._weights.values()), dtype=torch.float64, device=self._device)
            values = (torch.stack(list(self._totals.values())) / weights).tolist()
            results = dict(zip(self._totals, values, strict=True))
        for name, metric in self._objects.items():
            results[name] = float(metric.compute())
            metric.reset()
        return results
