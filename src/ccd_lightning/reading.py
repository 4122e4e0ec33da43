"""Reading small files that a program wrote: all of one, and nothing that would never end or fill the memory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 1 << 24  # of records, configs and results; the largest of them have some hundred kilobytes
MOST_NAMES = 1 << 28  # of tables that name the images of a data set


def check_regular(path: Path) -> os.stat_result:
    """Refuses what is no regular file before it is opened: a pipe may never open, a device may never end.

    Raises:
        OSError: If it is a pipe, a socket, a device or a folder, or is not there; with the path.
    """
    try:
        found = path.stat()
    except ValueError as error:  # a name with a zero byte
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return found


def read_text(path: Path, most: int = MOST_BYTES, errors: str = "strict") -> str:
    """The text of a regular file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        most: Bytes that it may have.
        errors: What becomes of bytes that are not UTF-8, as in `bytes.decode`.

    Raises:
        OSError: If it cannot be read, is no regular file, or is larger.
        UnicodeDecodeError: If it is not UTF-8 and `errors` is "strict".
    """
    if check_regular(path).st_size > most:
        raise OSError(errno.EINVAL, f"more than {most:,} bytes, too large for what it should hold", str(path))
    return path.read_text(encoding="utf-8-sig", errors=errors)
