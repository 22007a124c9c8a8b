"""Write trials of an ``nnictl`` experiment that train and search supernets."""

from __future__ import annotations

from nni_supernet_ext.trial.once import OnceTuner
from nni_supernet_ext.trial.parts import make_parts
from nni_supernet_ext.trial.session import Trial
from nni_supernet_ext.trial.stop import TrialStopped

__all__ = ["OnceTuner", "Trial", "TrialStopped", "make_parts"]
