"""What a law says where it does not hold."""

from __future__ import annotations

from nni_supernet_ext.testing.training import Run, differing


def require_equal(first: Run, second: Run, message: str) -> None:
    """Raise unless two runs ended with equal weights; those that differ are named."""
    names = differing(first.weights, second.weights)
    require(not names, f"{message}: {names}")


def require(condition: bool, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds, with and without ``python -O``."""
    if not condition:
        raise AssertionError(message)
