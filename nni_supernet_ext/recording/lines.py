"""Append to a file of lines that a killed process may have left with half a line."""

from __future__ import annotations

import os
from pathlib import Path


def append_line(path: Path, line: str) -> None:
    """Add a line on its own, also where the last one was cut off before its end.

    Args:
        path: The file; made where it is missing.
        line: The text, without a line break.

    Raises:
        OSError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "lines")
        >>> _ = path.write_text('{"cut')
        >>> append_line(path, "whole")
        >>> path.read_text().splitlines()
        ['{"cut', 'whole']
    """
    with path.open("ab+") as file:
        cut = False
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            cut = file.read(1) != b"\n"
        file.write(("\n" if cut else "").encode() + line.encode("utf-8") + b"\n")
