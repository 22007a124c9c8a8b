"""Decide where a strategy is recorded: in the trial it runs in, in an experiment of its own, or nowhere."""

from __future__ import annotations

import logging
import sqlite3
from typing import Any

from torch import nn

from nni_supernet_ext._compat.nni_experiment import running_experiment
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.errors import SupernetError
from nni_supernet_ext.recording.recording import NoRecording, Recording

_logger = logging.getLogger(__name__)
_trials: list[Any] = []


def enter_trial(trial: Any) -> None:
    """Have everything recorded in an nnictl trial from now on; it offers ``recording(mode)``."""
    _trials.append(trial)


def leave_trial(trial: Any) -> None:
    """Undo `enter_trial`."""
    if trial in _trials:
        _trials.remove(trial)


def open_recording(
    wanted: bool,
    domain: Domain,
    model: nn.Module,
    *,
    training: bool,
    metric: str = "val_acc",
    mode: str = "max",
) -> Recording:
    """Return what a strategy reports to.

    In an nnictl trial that has been opened with :class:`nni_supernet_ext.trial.Trial` that is the trial. Under
    ``NasExperiment.run`` it is the experiment itself, which thereby gets a database, and a web page where a port
    was given. Otherwise, or where nothing is wanted, nothing is recorded. A failure to record is said once and
    does not stop the run.

    Args:
        wanted: The strategy's argument ``record``.
        domain: The space's choices.
        model: The supernet; a search on it shows the training that was recorded in the same process.
        training: Whether a training is recorded, and not a search.
        metric: Name of the metric that becomes ``default``.
        mode: ``'max'`` or ``'min'``.

    Returns:
        A context manager.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> supernet = toy_supernet()
        >>> type(open_recording(True, supernet.domain, supernet.model, training=True)).__name__
        'NoRecording'
    """
    if not wanted:
        return NoRecording()
    if _trials:
        recording: Recording = _trials[-1].recording(mode)
        return recording
    running = running_experiment()
    if running is None:
        return NoRecording()
    from nni_supernet_ext.recording.own_experiment import OwnExperiment

    try:
        return OwnExperiment(running, domain, model, training=training, metric=metric, mode=mode)
    except (OSError, sqlite3.Error, SupernetError) as error:
        _logger.warning("The experiment is not recorded: %s The run goes on.", error)
        return NoRecording()
