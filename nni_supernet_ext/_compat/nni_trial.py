"""The trial's side of an experiment that ``nnictl`` started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["TrialConnection", "connect_trial"]


@dataclass
class TrialConnection:
    """The manager's parameters for this trial, and the way back to it.

    ``nni.report_intermediate_result`` cannot be used within a trial that runs a ``NasExperiment``: while that
    runs, NNI sends reports to its engine, and afterwards its idea of the current parameters is a model.

    Attributes:
        parameters: What the tuner chose.
        parameter_id: Its number.
        id: Identity of the trial.
        sequence: Number of the trial in the experiment.
        folder: The trial's own folder, the same after a resume.
        experiment: Folder of the experiment where it is on this machine, else None.
    """

    parameters: dict[str, Any]
    parameter_id: int
    id: str
    sequence: int
    folder: Path
    experiment: Path | None
    channel: Any

    def send(self, kind: str, sequence: int, metrics: Mapping[str, Any]) -> None:
        """Send a result, ``'PERIODICAL'`` or ``'FINAL'``.

        Raises:
            OSError: The manager is gone.
        """
        self.channel.send_metric(kind, self.parameter_id, self.id, sequence, dict(metrics))


def connect_trial() -> TrialConnection | None:
    """Ask the manager for this trial's parameters; None where no manager started this process.

    May be called once in a process, like ``nni.get_next_parameter``.

    Example:
        >>> connect_trial() is None
        True
    """
    if not os.environ.get("NNI_TRIAL_JOB_ID") or os.environ.get("NNI_PLATFORM") in (None, "unittest"):
        return None
    import nni
    from nni import trial
    from nni.runtime.trial_command_channel import get_default_trial_command_channel

    parameters = nni.get_next_parameter()
    record: Any = trial._params
    folder = Path(os.environ["NNI_OUTPUT_DIR"])
    experiments = [parent for parent in folder.parents if parent.name == os.environ["NNI_EXP_ID"]]
    experiment = experiments[0] if experiments and (experiments[0] / "db" / "nni.sqlite").exists() else None
    return TrialConnection(
        parameters=dict(parameters or {}),
        parameter_id=record["parameter_id"],
        id=nni.get_trial_id(),
        sequence=nni.get_sequence_id(),
        folder=folder,
        experiment=experiment,
        channel=get_default_trial_command_channel(),
    )
