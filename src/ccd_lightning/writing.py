"""Writing files so that a reader finds all of a file or none of it."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """A path to write to, which replaces the file once everything is written.

    The path is in the same folder. An error or an interruption leaves the old file, or none, and removes what was
    written so far.

    Args:
        file: The file to make or to replace; its folder exists.
    """
    partial = beside(file)
    try:
        yield partial
        put_in_place(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def put_in_place(partial: Path, file: Path) -> None:
    """Replaces a file by one on the same disk, whose content is there even if the power fails right after."""
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    partial.replace(file)


def atomic_link(link: Path, target: str) -> None:
    """Makes a symbolic link, or makes an existing one point to another target; other readers never miss it."""
    partial = beside(link)
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)


def beside(path: Path) -> Path:
    """A hidden path in the same folder, which no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def remove_leftovers(file: Path) -> None:
    """Removes what killed processes left of a file that only one process writes at a time."""
    for partial in file.parent.glob(f".{glob.escape(file.name)}.*.partial"):
        partial.unlink(missing_ok=True)
