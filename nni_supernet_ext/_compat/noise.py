"""Silence the messages that NNI 3.0 and Lightning repeat and that ask nothing of the user.

Each entry names one message and the one place it comes from; anything else is shown as before. `guards` loads
this file by its path when a process that NNI started (``nnictl``, a trial) imports NNI without this package,
so it imports nothing of this package.
"""

from __future__ import annotations

import logging
import warnings
from typing import NamedTuple


class WarningNoise(NamedTuple):
    """A warning to ignore: regular expressions for its start and its module, and its category."""

    message: str
    category: type[Warning]
    module: str

    def as_pytest_option(self) -> str:
        """Return the entry as a line of pytest's ``filterwarnings`` setting."""
        return f"ignore:{self.message}:{self.category.__name__}:{self.module}"


class LogNoise(NamedTuple):
    """A log message to drop: the logger that emits it and the start of its unformatted text."""

    logger: str
    message: str


WARNINGS = (
    # Any class of torch.nn that is newer than NNI and not a layer; NNI then passes it through unchanged.
    WarningNoise(r".* is found to be not a nn\.Module", RuntimeWarning, r"nni\.nas\.nn\.pytorch\.layers"),
    # Once per batch, from Lightning's copy of a torch function.
    WarningNoise(
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        FutureWarning,
        r"pytorch_lightning\.utilities\._pytree",
    ),
    # setuptools is held below 82 for exactly this import.
    WarningNoise(r"pkg_resources is deprecated as an API", UserWarning, r"nni\.tools\.nnictl\.nnictl"),
)

LOGS = (
    # Said several times by every sequential experiment, because NNI itself fills the setting in.
    LogNoise("nni.nas.experiment.config.experiment", "`training_service` will be ignored for sequential"),
    # Said before the first step, when there cannot be a checkpoint yet.
    LogNoise("nni.nas.oneshot.pytorch.strategy", "Checkpoint callback does not have last_model_path or best"),
    # Advertisements for other packages.
    LogNoise("pytorch_lightning.utilities.rank_zero", "💡 Tip:"),
)


class _DropMessage(logging.Filter):
    """Drop the records of one logger that start with one text."""

    def __init__(self, start: str) -> None:
        super().__init__()
        self.start = start

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(self.start)


def install_noise_filters() -> None:
    """Ignore the known messages; call again after something reset the warning filters.

    Example:
        >>> install_noise_filters()
    """
    for entry in WARNINGS:
        warnings.filterwarnings("ignore", entry.message, entry.category, entry.module)
    for noise in LOGS:
        logger = logging.getLogger(noise.logger)
        # By text and not by class: this file can be loaded twice in a process.
        if noise.message not in [getattr(known, "start", None) for known in logger.filters]:
            logger.addFilter(_DropMessage(noise.message))
