"""What every test needs: one thread, and the measured data where they are present."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import nni_supernet_ext  # noqa: F401 - makes torchvision importable and NNI quiet before any test imports them

import torch  # isort: skip


# What a test takes says more about the machine's other work than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_unconfigure() -> None:
    """Let NNI say good-bye for every experiment without a traceback: pytest has closed its stream by then."""
    logging.raiseExceptions = False


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep parallel test processes from fighting for cores."""
    torch.set_num_threads(1)


@pytest.fixture()
def log_levels() -> Iterator[None]:
    """Put back the log levels that scripts change for their own process."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning", "lightning.fabric", "nni")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder with the measured tables and images, or skip where it is absent."""
    configured = os.environ.get("NNI_SUPERNET_DATA")
    folder = Path(configured) if configured else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"The data folder {folder} is absent; set NNI_SUPERNET_DATA to run this test.")
    return folder
