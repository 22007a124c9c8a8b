"""Append to a file of lines that a killed process may have left with half a line."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def append_line(path: Path, line: str) -> None:
    """Add a line on its own, also where the last one was cut off before its end.

    It is written in one call, so that the lines of several processes do not mix.

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
    with path.open("ab+", buffering=0) as file:
        cut = False
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            cut = file.read(1) != b"\n"
        text = ("\n" if cut else "").encode() + line.encode("utf-8") + b"\n"
        if file.write(text) < len(text):
            raise OSError(errno.ENOSPC, "A line was written in part", str(path))
