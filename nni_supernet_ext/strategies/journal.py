"""A search's evaluations on disk, one JSON line each, so that a killed search loses nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nni_supernet_ext._compat.samples import plain_sample
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.errors import CheckpointError
from nni_supernet_ext.recording.lines import append_line


def sample_key(sample: Sample) -> str:
    """Return a text that is equal for equal samples.

    Example:
        >>> sample_key({'b': 1, 'a': [0]})
        '{"a": [0], "b": 1}'
    """
    return json.dumps(plain_sample(sample), sort_keys=True, default=str)


class Journal:
    """Remember metrics by sample, in memory and, with a path, on disk.

    Args:
        path: File of JSON lines; None keeps them in memory only.
        identity: What the evaluations depend on; a file with another identity is refused. A search gives its
            choices, weights, seed and numbers of batches. The data are not among them: evaluations on other
            validation data need another file.

    Raises:
        CheckpointError: The file belongs to another search, or is no journal.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.entries: dict[str, dict[str, float]] = {}
        self._header = json.loads(json.dumps({"journal": "nni_supernet_ext", **identity}))
        if path is None:
            return
        if path.exists() and path.stat().st_size:
            self._read(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._header) + "\n", encoding="utf-8")

    def get(self, sample: Sample) -> dict[str, float] | None:
        """Return a sample's metrics if they are known."""
        return self.entries.get(sample_key(sample))

    def add(self, sample: Sample, metrics: Mapping[str, float]) -> None:
        """Remember a sample's metrics and write them down before returning."""
        self.entries[sample_key(sample)] = dict(metrics)
        if self.path is not None:
            line = json.dumps({"sample": plain_sample(sample), "metrics": dict(metrics)}, default=str)
            append_line(self.path, line)

    def state_dict(self) -> dict[str, Any]:
        """Return all evaluations and what they depend on."""
        return {"search": self._header, "evaluations": dict(self.entries)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over evaluations.

        Raises:
            CheckpointError: They depend on something else.
        """
        if state.get("search") != self._header:
            raise CheckpointError(
                "The evaluations that NNI saved are expected to be of this search, but got those of other weights, "
                f"choices, seed or numbers of batches: {str(state.get('search'))[:200]}. Resume with the supernet "
                "that they were made with, or start a new experiment."
            )
        self.entries.update(state["evaluations"])

    def _read(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if _header(lines[0]) != self._header:
            raise CheckpointError(
                f"The journal {path} is expected to belong to this search, but got one of {lines[0][:200]}. Use "
                "another path, or delete it."
            )
        for line in lines[1:]:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # The last line of a killed run may be cut; that subnet is evaluated again.
            self.entries[sample_key(entry["sample"])] = entry["metrics"]


def _header(line: str) -> Any:
    """Return what the first line of a journal says; None where it is cut or the file is of another kind."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
