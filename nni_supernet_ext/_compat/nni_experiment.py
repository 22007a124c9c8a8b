"""Tell a strategy which ``NasExperiment`` runs it: NNI hands a strategy the model space and the engine only."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nni_supernet_ext._compat.nni_manager import manager_environment, wait_longer_for_managers

__all__ = [
    "RESUME_REMEDY",
    "RunningExperiment",
    "announce_experiments",
    "engine_configuration",
    "experiment_configuration",
    "running_experiment",
]

RESUME_REMEDY = "Resume this experiment from its own script: NasExperiment(..., id=...).resume()"
"""Of experiments that a Python script runs: ``nnictl`` knows no command for them."""

_current: list[RunningExperiment] = []


@dataclass
class RunningExperiment:
    """What a strategy may know about the experiment that runs it.

    Attributes:
        id: Identity, as ``nnictl`` shows it.
        name: Name given by the user.
        working_directory: Folder that holds the experiment's folder.
        port: Port that the user gave to ``run``; None where none was given.
        resumed: Whether the experiment was there before.
        closing: Functions to be called when the experiment is stopped.
    """

    id: str
    name: str
    working_directory: Path
    port: int | None
    resumed: bool
    closing: list[Callable[[], None]] = field(default_factory=list)


def running_experiment() -> RunningExperiment | None:
    """Return the experiment whose strategy is being run in this process, if any."""
    return _current[-1] if _current else None


@functools.cache
def announce_experiments() -> None:
    """Let `running_experiment` know, from now on; does nothing when called again.

    Experiments of other strategies (without the attribute ``record``) run as before.

    Example:
        >>> announce_experiments()
    """
    from nni.nas.experiment import NasExperiment

    for name in ("run", "resume", "run_or_resume", "start"):
        setattr(NasExperiment, name, _remembering_port(getattr(NasExperiment, name)))
    NasExperiment._start_engine_and_strategy = _announced(NasExperiment._start_engine_and_strategy)
    NasExperiment._start_nni_manager = _with_manager_environment(NasExperiment._start_nni_manager)
    for name in ("_start_without_nni_manager", "_stop_without_nni_manager"):
        setattr(NasExperiment, name, _closing(name, getattr(NasExperiment, name)))


def experiment_configuration(name: str, working_directory: Path, search_space: dict[str, Any], mode: str) -> Any:
    """Describe a search as a plain NNI experiment, which ``nnictl view`` can read; canonical.

    Args:
        name: Name to show.
        working_directory: Folder that holds the experiment's folder.
        search_space: The axes, in NNI's form.
        mode: ``'max'`` or ``'min'``: which of two results the page calls better.
    """
    from nni.experiment.config import ExperimentConfig

    configuration = ExperimentConfig("local")
    configuration.experiment_name = name
    configuration.experiment_working_directory = str(working_directory)
    configuration.search_space = search_space
    # Stock `nnictl resume` runs this for an unfinished trial.
    configuration.trial_command = f"echo '{RESUME_REMEDY}' >&2; exit 1"
    configuration.trial_code_directory = os.getcwd()
    configuration.trial_concurrency = 1
    configuration.max_trial_number = 1
    configuration.tuner.name = "TPE"
    configuration.tuner.class_args = {"optimize_mode": "maximize" if mode == "max" else "minimize"}
    return configuration.canonical_copy()


def engine_configuration(concurrency: int, **settings: Any) -> Any:
    """Configure a ``NasExperiment`` whose trials run on NNI's training service, on this machine unless told else.

    The trials import this package first: NNI's own entry fails where torchvision cannot load its operators.

    Args:
        concurrency: Trials at once.
        **settings: Further arguments of ``NasExperimentConfig``, such as ``training_service_platform``.

    Example:
        >>> engine_configuration(2).trial_concurrency
        2
    """
    from nni.nas.experiment import NasExperimentConfig

    given = {"training_service_platform": "local", "trial_concurrency": concurrency, **settings}
    configuration = NasExperimentConfig("ts", "raw", **given)
    configuration._trial_command_params = {"python": f"{sys.executable} -m nni_supernet_ext.trial"}
    return configuration


def _remembering_port(method: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the port of the outermost call; NNI itself passes a default on to the inner ones."""

    @functools.wraps(method)
    def wrapper(self: Any, port: int | None = None, *args: Any, **kwargs: Any) -> Any:
        outermost = "_page_port" not in self.__dict__
        if outermost:
            self._page_port = port
        try:
            return method(self, 8080 if port is None else port, *args, **kwargs)
        finally:
            if outermost:
                del self._page_port

    return wrapper


def _announced(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapper(self: Any) -> Any:
        config = self.config.canonical_copy()
        running = RunningExperiment(
            self.id,
            config.experiment_name or "",
            Path(config.experiment_working_directory),
            self.__dict__.get("_page_port"),
            self._action == "resume",
        )
        self._announced = running
        _current.append(running)
        try:
            return method(self)
        finally:
            _current.remove(running)

    return wrapper


def _with_manager_environment(method: Callable[..., Any]) -> Callable[..., Any]:
    """Start the manager of a strategy of this package in the environment that it needs."""

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(self.strategy, "record"):
            return method(self, *args, **kwargs)
        wait_longer_for_managers()
        before = os.environ.get("NODE_OPTIONS")
        os.environ.update(manager_environment())
        try:
            return method(self, *args, **kwargs)
        finally:
            os.environ.pop("NODE_OPTIONS", None)
            if before is not None:
                os.environ["NODE_OPTIONS"] = before

    return wrapper


def _closing(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapper(self: Any) -> Any:
        running = self.__dict__.get("_announced")
        if running is not None and name.startswith("_stop"):
            while running.closing:
                running.closing.pop()()
        # Inside an nnictl trial the experiment of the trial is the one to be listed.
        if os.environ.get("NNI_TRIAL_JOB_ID") and getattr(self.strategy, "record", False):
            return None
        return method(self)

    return wrapper
