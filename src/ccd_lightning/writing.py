"""Writing files so that a reader finds all of a file or none of it."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a cell begins that spreadsheets compute


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


def cell(text: str) -> str:
    """A text as a cell of a table that spreadsheets do not take for a formula.

    Names of files, folders and groups are not ours: one that begins with `=` would be computed when the table is
    opened. A space is put before it, which readers of the project's tables strip.
    """
    return f" {text}" if text.startswith(FORMULA) else text


def path_cell(path: str) -> str:
    """The same of a path, which stays one that can be opened: `./=a.png`."""
    return os.path.join(".", path) if path.startswith(FORMULA) else path


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
