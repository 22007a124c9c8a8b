"""Whether teacher and students see the same inputs: what a step draws by itself it draws for every subnet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nni_supernet_ext.errors import ConfigurationError

_STEPS = 4
"""Steps that are looked at; a look compares whole batches, and waits for an accelerator."""


class SameInputs:
    """Compare, in the first steps, what the model gets for students with what it got for the teacher.

    Inputs of another shape are let through: a student may have a resolution of its own.

    Args:
        step_every: ``'subnet'`` lets inputs through too that trained weights outside the model have made: an update
            between the draws changes them.
    """

    def __init__(self, step_every: str = "batch") -> None:
        self._trained_differ = step_every == "subnet"
        self._left = _STEPS
        self._teachers: list[Tensor] = []

    @contextmanager
    def watched(self, model: nn.Module, is_teacher: bool) -> Iterator[None]:
        """Look at the inputs of a model while a draw's loss is computed.

        Args:
            model: The supernet's model.
            is_teacher: Whether the draw is the teacher, with whom a step begins.

        Raises:
            ConfigurationError: A student's inputs have the teacher's shape and other values.
        """
        if is_teacher:
            self._left, self._teachers = self._left - 1, []
        if self._left < 0:
            yield
            return
        found: list[Tensor] = []
        handle = model.register_forward_pre_hook(
            lambda _, args, kwargs: found.extend(tensors_in((args, kwargs))), with_kwargs=True
        )
        try:
            yield
        finally:
            handle.remove()
        if is_teacher:
            self._teachers = found
        elif any(self._differ(mine, other) for mine, other in zip(found, self._teachers, strict=False)):
            raise ConfigurationError(
                "Method `training_step` of the evaluator is expected to give teacher and students the same inputs, "
                "but got others for a student: what the step draws at random, such as mixup, it draws for every "
                "subnet anew. Draw it once for each batch, in `on_after_batch_transfer` or in the loader's "
                "`collate_fn`, or use `beta=0`."
            )

    def _differ(self, first: Tensor, second: Tensor) -> bool:
        if first is second or first.shape != second.shape or (first.requires_grad and self._trained_differ):
            return False
        return not (torch.equal(first, second) or torch.allclose(first, second, rtol=0, atol=0, equal_nan=True))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested mappings, lists and tuples, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors_in(part)
