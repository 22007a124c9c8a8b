"""Trainings that take turns, step by step, in threads of one process: a comparison for a machine with other work.

What else a machine does changes a step's time by more than a method may cost, and over seconds. Contenders that
make the same step one right after the other meet the same conditions; the ratio of two steps is then taken before
the mean.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch


class Turns(pl.Callback):
    """Give the next contender its turn whenever a step is about to begin, and wait for the own one.

    Everything from one turn's beginning to the next one's belongs to it: the steps, the ends of epochs, the next
    batch. Seconds are those of the contender's own thread, so waiting counts nothing; with CUDA those of the clock,
    once the device is done. A copy, as sub-supernets get, is the callback itself.

    Args:
        order: Shared by all contenders.
        number: Of this contender.
        steps: How many steps make a turn.

    Attributes:
        seconds: Seconds of each turn.
    """

    def __init__(self, order: _Order, number: int, steps: int = 1) -> None:
        self.order, self.number, self.steps = order, number, steps
        self.seconds: list[float] = []
        self._since: float | None = None

    def __deepcopy__(self, memo: Any) -> Turns:
        return self

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """End a turn and wait for the next."""
        if batch_idx % self.steps:
            return
        self._end_of_turn()
        self.order.pass_on(self.number)
        self.order.wait(self.number)
        self._since = _now()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the last turn of a training."""
        self._end_of_turn()

    def _end_of_turn(self) -> None:
        if self._since is not None:
            self.seconds.append(_now() - self._since)
        self._since = None


def _now() -> float:
    if not torch.cuda.is_available():
        return time.thread_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class _Order:
    """Whose turn it is; the first turn begins when all have arrived."""

    def __init__(self, contenders: int) -> None:
        self._running = list(range(contenders))
        self._missing = set(self._running)
        self._turn = 0
        self._changed = threading.Condition()

    def wait(self, number: int) -> None:
        with self._changed:
            self._missing.discard(number)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._missing and self._running and self._turn == number)

    def pass_on(self, number: int) -> None:
        with self._changed:
            if not self._missing and self._turn == number and number in self._running:
                place = self._running.index(number)
                self._turn = self._running[(place + 1) % len(self._running)]
                self._changed.notify_all()

    def leave(self, number: int) -> None:
        with self._changed:
            if number in self._running:
                place = self._running.index(number)
                self._running.remove(number)
                if self._running and self._turn == number:
                    self._turn = self._running[place % len(self._running)]
            self._missing.discard(number)
            self._changed.notify_all()


def in_lockstep(
    contenders: Mapping[str, Callable[[pl.Callback], Callable[[], None]]], steps: Mapping[str, int] | None = None
) -> dict[str, list[float]]:
    """Train all contenders step by step in turn.

    Args:
        contenders: Name -> function that takes a callback, sets a training up with it, and returns what trains.
            Set-up happens one after the other, in this thread.
        steps: How many steps make a turn of a contender. Default: one.

    Returns:
        Name -> seconds of each turn.

    Raises:
        Exception: What the first failed training raised.
    """
    order = _Order(len(contenders))
    sizes = steps or {}
    turns = {name: Turns(order, number, sizes.get(name, 1)) for number, name in enumerate(contenders)}
    trainings = {name: make(turns[name]) for name, make in contenders.items()}
    errors: list[BaseException] = []

    def run(name: str) -> None:
        try:
            trainings[name]()
        except BaseException as error:
            errors.append(error)
        finally:
            order.leave(turns[name].number)

    threads = [threading.Thread(target=run, args=(name,)) for name in contenders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {name: turn.seconds for name, turn in turns.items()}


def compared(seconds: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    """Compare two contenders that made the same steps.

    Args:
        seconds: Of one.
        reference: Of the other.

    Returns:
        ``total``: ratio of all seconds, work at the ends of epochs included; ``median``, ``low`` and ``high``:
        median and quartiles of the ratios of single steps.
    """
    ratios = [a / b for a, b in zip(seconds, reference, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return {"total": sum(seconds) / sum(reference), "median": median, "low": low, "high": high}
