"""The web page of an experiment that runs in this process."""

from __future__ import annotations

import logging
from typing import Any

from nni_supernet_ext._compat.nni_manager import ManagerError, ViewManager, serves_everywhere

_logger = logging.getLogger(__name__)
_open: dict[int, Page] = {}


class Page:
    """A manager in view mode, and the port it serves.

    Args:
        manager: The running manager.
    """

    def __init__(self, manager: ViewManager) -> None:
        self._manager = manager
        self.port = manager.port

    @classmethod
    def open(cls, experiment: str, configuration: Any, port: int) -> Page | None:
        """Serve an experiment's page on the loopback interface.

        A page of an earlier experiment of this process on the same port gives way: a search comes after its
        training. All interfaces, as stock NNI, where the environment variable ``NNI_SUPERNET_BIND_ALL`` is 1.

        Returns:
            The page; None if it cannot be served, which is said once.
        """
        earlier = _open.pop(port, None)
        if earlier is not None:
            earlier.close()
        try:
            page = cls(ViewManager(experiment, configuration, port, serves_everywhere()))
        except ManagerError as error:
            _logger.warning(
                "NNI's web page is not served: %s The run goes on and is recorded; see it afterwards with "
                "`nnictl view %s --port <port>`.",
                error,
                experiment,
            )
            return None
        _logger.info("NNI's web page: http://127.0.0.1:%d", port)
        _open[port] = page
        return page

    def close(self) -> None:
        """Stop serving."""
        self._manager.stop()
        if _open.get(self.port) is self:
            del _open[self.port]
