"""The tuner of an experiment whose one trial is the whole training and search."""

from __future__ import annotations

import os
from typing import Any

import nni
from nni.tuner import Tuner


class OnceTuner(Tuner):
    """Issue one trial per experiment, and none after ``nnictl resume``, which restarts the unfinished one itself.

    Use it where the trial adds every subnet of its search to the experiment, with ``trialConcurrency: 1`` and a
    ``maxTrialNumber`` larger than the number of subnets:

    .. code-block:: yaml

        tuner:
          className: nni_supernet_ext.trial.OnceTuner
          codeDirectory: .

    Args:
        parameters: What the trial receives beside ``{"stage": "supernet"}``, which tells it from the subnets.
        optimize_mode: ``'maximize'`` or ``'minimize'``; the web page reads it.

    Example:
        >>> tuner = OnceTuner({'epochs': 30})
        >>> tuner.generate_parameters(0)
        {'stage': 'supernet', 'epochs': 30}
    """

    def __init__(self, parameters: dict[str, Any] | None = None, optimize_mode: str = "maximize") -> None:
        self.parameters = {"stage": "supernet", **(parameters or {})}
        self.optimize_mode = optimize_mode
        self._issued = os.environ.get("NNI_MODE") == "resume"

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """Accept any search space: it only gives the page its axes."""

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """Return the one set of parameters.

        Raises:
            nni.NoMoreTrialError: It was issued before.
        """
        if self._issued:
            raise nni.NoMoreTrialError("The experiment has one trial.")
        self._issued = True
        return dict(self.parameters)

    def receive_trial_result(self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any) -> None:
        """Ignore the result."""

    def import_data(self, data: list[Any]) -> None:
        """Ignore what a resumed experiment has found already."""
