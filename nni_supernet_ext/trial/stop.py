"""Leave a trial the way NNI expects."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any


class TrialStopped(SystemExit):
    """Say that the manager wants the trial to end, or that it is gone.

    It is no ``KeyboardInterrupt``: ``NasExperiment.run`` catches that one and returns, and the script would go
    on. `nni_supernet_ext.trial.Trial` turns it into the end by a signal that NNI takes for a stopped trial.

    Args:
        reason: Why, as a clause without a full stop.

    Attributes:
        reason: The same; it is also the text of the exception.
        code: Exit code of a script that lets the exception pass outside of a ``Trial``: 130, as after Ctrl-C.

    Example:
        >>> stopped = TrialStopped("NNI's manager is gone")
        >>> str(stopped), stopped.code, isinstance(stopped, KeyboardInterrupt)
        ("NNI's manager is gone", 130, False)
    """

    def __init__(self, reason: str) -> None:
        super().__init__(130)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class StopSignals:
    """Raise `TrialStopped` at SIGINT and SIGTERM between `install` and `restore`."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take the signals over; NNI sends SIGINT and, five seconds later, SIGKILL."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, _stop)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()


def _stop(number: int, frame: FrameType | None) -> None:
    # A second signal must not disturb the saving that the first one started.
    signal.signal(number, signal.SIG_IGN)
    raise TrialStopped(f"the trial was stopped by {signal.Signals(number).name}")


def leave_by_signal(reason: str) -> None:
    """End the process as Ctrl-C would, after its exit handlers, with one line instead of a traceback.

    NNI reads the exit code: 0 is SUCCEEDED and any other number FAILED; only an end by a signal is a stopped
    trial.

    Raises:
        KeyboardInterrupt: Always; nothing must catch it.
    """
    shown = sys.excepthook

    def hook(kind: Any, value: Any, trace: Any) -> None:
        if kind is KeyboardInterrupt:
            print(f"Left: {reason}.", file=sys.stderr, flush=True)
        else:
            shown(kind, value, trace)

    sys.excepthook = hook
    raise KeyboardInterrupt from None
