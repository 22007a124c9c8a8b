"""Files of several trainings in one folder: what is finished, and how the supernet was split."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor

from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.optimizer_settings import first_difference
from nni_supernet_ext.core.step_settings import part_arguments
from nni_supernet_ext.errors import CheckpointError
from nni_supernet_ext.strategies.journal import sample_key
from nni_supernet_ext.strategies.splits import Division, SplitRule

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: processes must not train the same part at the same time.
    fcntl = None

_logger = logging.getLogger(__name__)


class StageFiles:
    """Remember finished trainings and decided splits, in a folder or, without one, not at all.

    Args:
        folder: Where to keep them; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold a training for the time of a block; another process that holds it is waited for.

        The system lets go of it when a process dies, however it dies.

        Args:
            name: Name of the training.
        """
        if self.folder is None or _is_copy() or fcntl is None:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.lock").open("a", encoding="utf-8") as file:
            try:  # Of the process, unlike `flock`: worker processes that outlive a killed training do not hold it.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                _logger.info("Waiting for the process that is at work on %s in %s.", name, self.folder)
                fcntl.lockf(file, fcntl.LOCK_EX)
            yield

    def checkpoint_dir(self, name: str) -> Path | None:
        """Return the folder of a running training's own checkpoint."""
        return None if self.folder is None else self.folder / name

    def read(self, name: str, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a finished training, on the CPU, or None where it is not finished.

        Args:
            name: Name of the training.
            identity: What must not have changed since; of a mapping, what both sides know.

        Raises:
            CheckpointError: The file belongs to another configuration.
        """
        path = None if self.folder is None else self.folder / f"{name}.pt"
        if path is None or not path.exists():
            return None
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        for key, value in _plain(identity).items():
            then = saved["identity"].get(key)
            if isinstance(value, Mapping):
                _refuse(path, first_difference(then or {}, value))
            elif then != value:
                _refuse(path, f"`{key}`: saved with {then}, now {value}")
        return saved

    def write(self, name: str, identity: Mapping[str, Any], content: Mapping[str, Any]) -> None:
        """Write a finished training; the file is complete or absent, whatever happens meanwhile."""
        if self.folder is None or _is_copy():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{name}.{os.getpid()}.writing"
        torch.save({"identity": _plain(identity), **_plain(content)}, partial)
        partial.replace(self.folder / f"{name}.pt")

    def read_division(self, name: str, rule: SplitRule, domain: Domain) -> Division | None:
        """Return how a supernet was split, or None where that is not decided.

        Args:
            name: Name of the split.
            rule: The rule that would decide it.
            domain: What is split.

        Raises:
            CheckpointError: It was decided by another rule.
        """
        path = None if self.folder is None else self.folder / f"{name}.json"
        if path is None or not path.exists():
            return None
        saved = json.loads(path.read_text(encoding="utf-8"))
        _refuse(path, first_difference(saved.get("rule", {}), _described(rule)))
        label = saved["label"]
        # The file has no tuples: the candidates themselves are those that look the same there.
        candidates = {sample_key({label: value}): value for value in domain.candidates.get(label, [])}
        groups = [
            [candidates.get(sample_key({label: value}), value) for value in group] for group in saved["groups"]
        ]
        return Division(label, tuple(map(tuple, groups)))

    def write_division(self, name: str, rule: SplitRule, division: Division) -> None:
        """Write how a supernet was split, and by which rule."""
        if self.folder is None or _is_copy():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{name}.{os.getpid()}.json.writing"
        content = {"label": division.label, "groups": division.groups, "rule": _described(rule)}
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(self.folder / f"{name}.json")


def _described(rule: SplitRule) -> dict[str, Any]:
    """Return a rule's class and arguments, as far as they can be compared."""
    name = type(rule).__name__
    return {"rule": name} | {f"{argument} of {name}": value for argument, value in part_arguments(rule).items()}


def _refuse(path: Path, difference: str | None) -> None:
    if difference is not None:
        raise CheckpointError(
            f"The file {path} is expected to be of the same configuration, but got another {difference}. Use the "
            "saved settings, or another `checkpoint_dir` to start afresh."
        )


def _is_copy() -> bool:
    """Tell whether another process of the same distributed run writes the files."""
    return bool(getattr(rank_zero_only, "rank", 0))


def _plain(value: Any) -> Any:
    """Copy nested containers to builtins, tensors to the CPU: a file that ``weights_only`` loading accepts."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return items if isinstance(value, list) else tuple(items)  # A candidate may be a tuple.
    return str.__str__(value) if isinstance(value, str) else value
