"""Train a case once and keep everything the laws compare."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch import Tensor
from torch.optim import Optimizer

from nni_supernet_ext._compat.samples import plain_sample
from nni_supernet_ext.core.callback import SupernetCallback
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.strategies.supernet import SupernetStrategy
from nni_supernet_ext.testing.case import MethodCase

_QUIET = ("pytorch_lightning", "lightning", "nni")


@dataclass
class Run:
    """One finished training.

    Attributes:
        weights: The supernet's state, copied.
        draws: Samples of every step, in order.
        rates: Learning rate of every optimizer step.
        strategy: The strategy that ran.
        evaluator: The evaluator it ran with.
    """

    weights: dict[str, Tensor]
    draws: list[list[dict[str, Any]]]
    rates: list[float]
    strategy: SupernetStrategy
    evaluator: Any


class Trace(SupernetCallback):
    """Record the draws and the learning rates of a run. It watches only."""

    def __init__(self) -> None:
        self.draws: list[list[dict[str, Any]]] = []
        self.rates: list[float] = []

    def on_draws(self, state: StepState) -> None:
        """Record the step's samples."""
        self.draws.append([plain_sample(draw.sample) for draw in state.draws])

    def on_after_update(self, state: StepState, optimizer: Optimizer) -> None:
        """Record the rate that was in force."""
        self.rates.append(float(state.learning_rate or 0.0))


@dataclass
class RandomState:
    """The global random states, to be compared before and after."""

    torch_state: Tensor = field(default_factory=torch.get_rng_state)
    numpy_state: str = field(default_factory=lambda: repr(np.random.get_state()))
    python_state: str = field(default_factory=lambda: repr(random.getstate()))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RandomState)
            and torch.equal(self.torch_state, other.torch_state)
            and self.numpy_state == other.numpy_state
            and self.python_state == other.python_state
        )


def train(
    case: MethodCase,
    settings: Mapping[str, Any],
    root: str | Path,
    *,
    epochs: int = 2,
    seed: int = 0,
    space: Any = None,
    evaluator_arguments: Mapping[str, Any] | None = None,
) -> Run:
    """Train a case's space with a strategy of the given settings.

    Args:
        case: Gives the space and the evaluator.
        settings: Keyword arguments of ``SupernetStrategy``.
        root: Folder for everything that is written.
        epochs: Epochs to train.
        seed: Seed of the strategy (a seed among the settings wins).
        space: Model space to train; default a new one with weights from a fixed seed.
        evaluator_arguments: Further arguments of the evaluator.

    Returns:
        The finished run.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing.cases import CASES
        >>> run = train(CASES[0], CASES[0].settings(), tempfile.mkdtemp(), epochs=1)
        >>> len(run.draws)
        4
    """
    with _quiet():
        return _train(case, settings, Path(root), epochs, seed, space, evaluator_arguments or {})


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the host's remarks on every tiny run off the console."""
    loggers = [logging.getLogger(name) for name in _QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _train(
    case: MethodCase,
    settings: Mapping[str, Any],
    root: Path,
    epochs: int,
    seed: int,
    space: Any,
    evaluator_arguments: Mapping[str, Any],
) -> Run:
    evaluator = case.evaluator(max_epochs=epochs, root=root, **evaluator_arguments)
    trace = Trace()
    arguments = {"seed": seed, "validate": 1, "recalibrate_batches": 2, **settings}
    strategy = SupernetStrategy(**{**arguments, "callbacks": [*arguments.get("callbacks", []), trace]})
    with torch.random.fork_rng(devices=[]):
        # Weights are the caller's: NNI makes those of mutable layers when the strategy mutates the space.
        torch.manual_seed(0)
        space = space if space is not None else case.space()
        strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    strategy.run()
    weights = {name: value.detach().clone() for name, value in space.state_dict().items()}
    return Run(weights, trace.draws, trace.rates, strategy, evaluator)


def differing(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that are not equal bit for bit.

    Example:
        >>> differing({'w': torch.ones(2)}, {'w': torch.ones(2)})
        []
    """
    if first.keys() != second.keys():
        return sorted(first.keys() ^ second.keys())
    return [name for name, value in first.items() if not torch.equal(value, second[name])]
