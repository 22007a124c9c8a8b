"""NNI's manager (the node process that serves the web page) and the list that ``nnictl`` reads."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nni_supernet_ext.errors import SupernetError

__all__ = [
    "ManagerError",
    "ViewManager",
    "list_experiment",
    "manager_environment",
    "serves_everywhere",
    "update_listed",
    "wait_longer_for_managers",
]

PRELOADED = tuple(Path(__file__).with_name(name) for name in ("loopback.js", "patience.js"))
_PATIENCE = 30.0


class ManagerError(SupernetError, RuntimeError):
    """Report that the web page cannot be served: the port is taken, or there is no node."""


def manager_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which NNI's managers listen on 127.0.0.1 only and wait a minute for their tuner.

    With ``NNI_SUPERNET_BIND_ALL=1`` they listen on every interface, as NNI has it.

    Args:
        environment: What to start from; default the environment of this process.

    Returns:
        A copy with ``NODE_OPTIONS`` extended.

    Example:
        >>> "loopback.js" in manager_environment({})["NODE_OPTIONS"]
        True
    """
    result = dict(os.environ if environment is None else environment)
    for file in PRELOADED:
        option = f'--require="{file}"'
        if option not in result.get("NODE_OPTIONS", ""):
            result["NODE_OPTIONS"] = f"{result.get('NODE_OPTIONS', '')} {option}".strip()
    return result


def serves_everywhere() -> bool:
    """Tell whether the user asked for a page on every interface: ``NNI_SUPERNET_BIND_ALL=1``."""
    return os.environ.get("NNI_SUPERNET_BIND_ALL") == "1"


def wait_longer_for_managers(attempts: int = 30) -> None:
    """Have NNI's launcher wait longer for a manager's first answer than its four seconds.

    Args:
        attempts: How often it asks, with a second in between. Default 30.
    """
    from nni.experiment import launcher

    defaults = launcher._check_rest_server.__defaults__
    if defaults is not None:
        launcher._check_rest_server.__defaults__ = (attempts, *defaults[1:])


class ViewManager:
    """Serve an experiment's page from its records, while others go on writing them.

    Args:
        experiment: Identity of the experiment.
        configuration: Its canonical ``ExperimentConfig``.
        port: Port of the page.
        everywhere: Whether to listen on every interface, as stock NNI does. Default False: loopback only.

    Raises:
        ManagerError: The port is taken, or the manager does not start or answer.
    """

    def __init__(self, experiment: str, configuration: Any, port: int, everywhere: bool = False) -> None:
        self.port = port
        _refuse_taken_port(port)
        folder = Path(configuration.experiment_working_directory, experiment, "log")
        folder.mkdir(parents=True, exist_ok=True)
        self._process = _start(experiment, configuration, port, everywhere, folder)
        try:
            self._wait(configuration)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Process id of the manager."""
        return self._process.pid

    def alive(self) -> bool:
        """Tell whether the manager still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the manager; the records stay."""
        if not self.alive():
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def _wait(self, configuration: Any) -> None:
        from nni.experiment import rest

        end = time.monotonic() + _PATIENCE
        while True:
            if not self.alive():
                raise ManagerError(f"NNI's manager ended with code {self._process.returncode} while it started.")
            with contextlib.suppress(Exception):
                rest.get(self.port, "/check-status")
                break
            if time.monotonic() > end:
                raise ManagerError(f"NNI's manager did not answer within {_PATIENCE:.0f} seconds.")
            time.sleep(0.2)
        try:
            rest.post(self.port, "/experiment", configuration.json())
        except Exception as error:
            raise ManagerError(f"NNI's manager refused the experiment: {error}.") from error


def _start(
    experiment: str, configuration: Any, port: int, everywhere: bool, folder: Path
) -> subprocess.Popen[bytes]:
    import nni_node
    from nni.experiment.launcher import NniManagerArgs

    home = Path(nni_node.__path__[0])
    node = home / ("node.exe" if sys.platform == "win32" else "node")
    arguments = NniManagerArgs("view", experiment, configuration, port, False, False, None, None)
    # Also where it listens everywhere: the preloaded script ends it when this process is killed.
    environment = manager_environment()
    environment["NNI_SUPERNET_BIND_ALL"] = "1" if everywhere else "0"
    environment["NNI_SUPERNET_EXT_OWNER"] = str(os.getpid())
    with (folder / "manager.log").open("ab") as log:
        try:
            return subprocess.Popen(
                [str(node), "--max-old-space-size=4096", str(home / "main.js"), *arguments.to_command_line_args()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home,
                env=environment,
                # Ctrl-C is for the training, which then ends the manager itself.
                start_new_session=True,
            )
        except OSError as error:
            raise ManagerError(f"NNI's node could not be started: {error}.") from error


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ManagerError(f"Port {port} is taken.") from error


def list_experiment(
    experiment: str, name: str, working_directory: Path, *, port: int | None, status: str, started: int
) -> None:
    """Enter an experiment of this process into the list that ``nnictl experiment list`` shows."""
    from nni.tools.nnictl.config_utils import Experiments

    Experiments().add_experiment(
        experiment,
        port if port is not None else "N/A",
        started,
        "local",
        name,
        status=status,
        # nnictl takes an experiment whose process is gone for stopped, and stops it by SIGTERM.
        pid=os.getpid(),
        logDir=str(working_directory),
        tag=["retiarii"],
    )


def update_listed(experiment: str, **values: Any) -> None:
    """Change entries of an experiment in nnictl's list."""
    from nni.tools.nnictl.config_utils import Experiments

    listed = Experiments()
    for key, value in values.items():
        listed.update_experiment(experiment, key, value)
