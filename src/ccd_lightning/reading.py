"""Reads small text files safely: no pipes or devices that never end, and no files that would fill the memory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MAX_BYTES = 1 << 24  # limit for records, configs and results, which have a few hundred kilobytes at most
MAX_TABLE_BYTES = 1 << 28  # limit in bytes for tables with the images of a data set


def check_regular(path: Path) -> os.stat_result:
    """Checks that a path is a regular file before it is opened: opening a pipe may block, and a device may never end.

    Raises:
        OSError: If it is a pipe, a socket, a device or a folder, or does not exist. The error contains the path.
    """
    try:
        found = path.stat()
    except ValueError as error:  # a name with a zero byte
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return found


def read_text(path: Path, most: int = MAX_BYTES, errors: str = "strict") -> str:
    """Reads the text of a regular file in UTF-8, with or without a byte order mark.

    Args:
        path: Path of the file.
        most: Maximum size of the file in bytes.
        errors: Handling of bytes that are not UTF-8, as in `bytes.decode`.

    Raises:
        OSError: If the file cannot be read, is not a regular file, or is too large.
        UnicodeDecodeError: If it is not UTF-8 and `errors` is "strict".
    """
    if check_regular(path).st_size > most:
        raise OSError(errno.EINVAL, f"more than {most:,} bytes, too large for what it should hold", str(path))
    return path.read_text(encoding="utf-8-sig", errors=errors)
