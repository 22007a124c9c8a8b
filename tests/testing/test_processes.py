"""Training processes that fail or hang: none is left, and what they wrote is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nni_supernet_ext.testing import processes

HANGS = "import time; print('waits for the other', flush=True); time.sleep(600)"
FAILS = "import sys; print('went wrong', flush=True); sys.exit(3)"


@pytest.fixture()
def started(monkeypatch):
    """Start other programs in place of the workers, one for each rank; the test says which."""
    found, programs = [], []

    def start(job, rank, world_size, port, log):
        with log.open("wb") as output:
            found.append(subprocess.Popen([sys.executable, "-c", programs[rank]], stdout=output, stderr=output))
        return found[-1]

    monkeypatch.setattr(processes, "_start", start)
    yield found, programs
    for process in found:
        process.kill()
        process.wait()


def _message(root, world_size):
    with pytest.raises(AssertionError) as caught:
        processes.train_in_processes([], root, epochs=1, world_size=world_size)
    return str(caught.value)


def test_processes_that_hang_are_stopped_and_heard(started, tmp_path, monkeypatch):
    found, programs = started
    programs += [HANGS, HANGS]
    monkeypatch.setattr(processes, "_TIMEOUT", 2)
    message = _message(tmp_path, 2)
    assert "expected to end within 2 s, but [0, 1] did not" in message
    assert message.count("waits for the other") == 2
    assert all(process.returncode is not None for process in found)


def test_a_failure_stops_those_that_wait_for_it(started, tmp_path):
    found, programs = started
    programs += [HANGS, FAILS]
    message = _message(tmp_path, 2)
    assert "A training process failed: 1 of 2, with exit status 3" in message
    assert "went wrong" in message
    assert all(process.returncode is not None for process in found)


def test_an_interrupt_leaves_none(started, tmp_path, monkeypatch):
    found, programs = started
    programs += [HANGS]

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(processes.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        processes.train_in_processes([], tmp_path, epochs=1)
    assert found[0].returncode is not None
