"""What an evaluator's steps call their model with: the batch as their own preparation leaves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from nni_supernet_ext.core.redirected_log import muted_log
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional._module_modes import preserved_modes

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class _Called(BaseException):
    """Leaves a step as soon as it calls the model; no `Exception`, so that no handler of the step's catches it."""


def model_arguments(module: Any, batch: Any, model: nn.Module) -> Arguments:
    """Return the arguments with which an evaluator's step calls its model on a batch, without running the model.

    The step runs up to its first call of the model, in eval mode, without logging, and random states stay as they
    are. ``validation_step`` is asked first, whose preparation is that of the results to come, and ``training_step``
    where it cannot take the batch.

    Args:
        module: The evaluator's Lightning module; its model is ``model``.
        batch: Batch on the model's device.
        model: The model.

    Returns:
        Positional and keyword arguments. Where the steps never call the model itself (but parts of it), the batch
        or the first of its parts.

    Raises:
        ConfigurationError: Both steps fail before they call the model.
    """
    failures = []
    for name in ("validation_step", "training_step"):
        found, failure = _arguments_of(module, getattr(module, name), batch, model)
        if found is not None:
            return found
        if failure is not None:
            failures.append((name, failure))
    if len(failures) < 2:
        return ((batch[0] if isinstance(batch, (list, tuple)) else batch,), {})
    told = "; ".join(f"`{name}`: {type(error).__name__}: {error}" for name, error in failures)
    raise ConfigurationError(
        f"The evaluator's steps are expected to take a training batch and call their model, but got {told}. Make "
        "one of them take it; for statistics of batch normalisation alone, `recalibrate_batches=0` does without."
    ) from failures[0][1]


def calling(model: nn.Module) -> Callable[[Arguments], Any]:
    """Return the function that calls a model with arguments that :func:`model_arguments` found."""
    return lambda arguments: model(*arguments[0], **arguments[1])


def _arguments_of(
    module: Any, step: Any, batch: Any, model: nn.Module
) -> tuple[Arguments | None, Exception | None]:
    """Return what one step calls the model with, or why it did not come to that."""
    found: list[Arguments] = []
    failure: Exception | None = None

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append((args, kwargs))
        raise _Called

    handle = model.register_forward_pre_hook(keep, prepend=True, with_kwargs=True)
    with preserved_modes(module), torch.no_grad(), isolate_rng(), muted_log(module):
        module.eval()
        # Lightning's context restores the random states only where nothing is raised in it.
        try:
            step(batch, 0)
        except _Called:
            pass
        except Exception as error:
            failure = error
        finally:
            handle.remove()
    if found and found[0][0] and all(isinstance(value, str) for value in found[0][0]):
        # A step for pairs takes the names of a dictionary of two for one.
        return None, TypeError(f"it calls the model with {found[0][0][0]!r}, a key of the batch")
    return (found[0] if found else None), failure
