"""Write trials of an ``nnictl`` experiment that train and search supernets.

Its names are imported when they are asked for. NNI imports the tuner's package before the tuner connects to the
manager, which gives up after 10 seconds; what the trials need (torch, Lightning) takes about that long on a busy
machine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nni_supernet_ext.trial.once import OnceTuner
    from nni_supernet_ext.trial.parts import make_parts
    from nni_supernet_ext.trial.session import Trial
    from nni_supernet_ext.trial.stop import TrialStopped

__all__ = ["OnceTuner", "Trial", "TrialStopped", "make_parts"]

_FILES = {"OnceTuner": "once", "Trial": "session", "TrialStopped": "stop", "make_parts": "parts"}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
