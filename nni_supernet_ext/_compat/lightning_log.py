"""Log a training step's values without Lightning's per-call checks, once it has made them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class StepLog:
    """Update values that Lightning already knows in place of a full ``self.log``.

    Lightning compares metadata, moves the stored metric and walks its fields at every call: about a tenth of
    a small training step for the two values NNI's classification logs. For a value that is logged on the step
    only, with the same arguments as before, all that is left to do is to store it. In every other case, and
    under a Lightning whose internals look different, the caller logs as usual.

    Args:
        module: The Lightning module that logs.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._known: dict[str, tuple[Any, Any]] = {}
        self._shown: bool | None = None

    @property
    def progress_is_shown(self) -> bool:
        """Whether the trainer has a progress bar that shows itself; it is looked for once, after it was set up."""
        if self._shown is None and self._module._trainer is not None:
            bar = self._module._trainer.progress_bar_callback
            self._shown = bar is not None and bool(getattr(bar, "is_enabled", True))
        return bool(self._shown)

    def update(self, name: str, value: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> bool:
        """Store a value if Lightning has seen this very call in this epoch.

        Args:
            name: Name of the value.
            value: Scalar tensor or number.
            arguments: Positional arguments after the value.
            options: Keyword arguments.

        Returns:
            True if stored; False if the caller has to log it in full.
        """
        known = self._known.get(name)
        if known is None or arguments or known[1] != options:
            return False
        trainer = self._module._trainer
        metric, connector = known[0], trainer._logger_connector
        results = trainer._results
        key = f"{self._module._current_fx_name}.{name}"
        if connector._first_loop_iter is not False or results is None or results.get(key) is not metric:
            return False
        if not isinstance(value, Tensor):
            value = torch.tensor(value, device=self._module.device, dtype=torch.get_default_dtype())
        if value.numel() != 1 or not value.is_floating_point():
            return False
        # A copy, as Lightning stores one: the caller may go on to change its tensor.
        stored = value.detach().clone().reshape(())
        metric._forward_cache = stored
        metric.value = stored
        metric.has_reset = False
        connector._current_fx = self._module._current_fx_name
        return True

    def remember(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Take note of a call that Lightning has just handled, if later ones may be shortened."""
        self._known.pop(name, None)
        try:
            results = self._module._trainer._results
            metric = results[f"{self._module._current_fx_name}.{name}"]
            short = metric.is_tensor and metric.meta.on_step and not metric.meta.on_epoch
            plain_sync = not metric.meta.sync.should
        except (AttributeError, KeyError, TypeError):
            return
        if short and plain_sync and not arguments:
            self._known[name] = (metric, dict(options))
