"""Files of results: one JSON line per run, only ever appended to or replaced as a whole."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from protocols import Protocol

from nni_supernet_ext.errors import DataError
from nni_supernet_ext.recording.lines import append_line as append_text

Line = dict[str, Any]
_NAMES = {"protocol", "method", "seed"}
"""What tells a run from others."""


def read_lines(path: Path) -> list[Line]:
    """Read a file of results; blank lines say nothing, and NaN, which older files have, is None.

    Raises:
        DataError: There is no such file, or a line is no result.
    """
    if not path.is_file():
        raise DataError(
            f"A file of results is expected, but got {path}, which is none. Name one that `run.py` wrote."
        )
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text, parse_constant=lambda name: None)
        except json.JSONDecodeError as error:
            raise DataError(
                f"Line {number} of {path} is expected to be JSON, but got {text[:40]!r} ({error.msg}). Remove the "
                "line: the command then measures that run again."
            ) from None
        if not isinstance(line, dict) or not line.keys() >= _NAMES:
            raise DataError(
                f"Line {number} of {path} is expected to be a result with {sorted(_NAMES)}, but got {text[:40]!r}. "
                "Remove the line, or name another file."
            )
        lines.append(line)
    return lines


def holds(path: Path, protocol: Protocol, method: str, seed: int) -> bool:
    """Tell whether a file of results, which need not exist, holds a run."""
    if not path.exists():
        return False
    # Through the class: results that are older than a setting have its default.
    return any(
        (line["method"], line["seed"]) == (method, seed) and Protocol(**line["protocol"]) == protocol
        for line in read_lines(path)
    )


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line of its own, in one call, so that lines of processes side by side do not mix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    append_text(path, _text(line))


def replace_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file of results at once: a kill leaves the old or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(f"{_text(line)}\n" for line in lines)
        os.chmod(name, path.stat().st_mode & 0o777)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(_plain(line), allow_nan=False)


def _plain(value: Any) -> Any:
    """Write what is not a finite number as null: JSON has no word for it."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
