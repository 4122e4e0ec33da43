"""Paths of images: a file, or one page of a file that contains several images."""

from __future__ import annotations

import os
import re
from pathlib import Path

PAGE = re.compile(r"(.+)\[([xyz]?)(\d{1,9})\]", re.DOTALL)
AXES = "xyz"  # axes of a volume: to the right, to the front, upwards
AXIAL = 2


def split_page(path: Path) -> tuple[Path, int | None]:
    """Splits a path such as `stack.tif[3]`, in ImageMagick's notation, into file and page.

    Args:
        path: Path of a file, or of a file followed by a page number, from 0, in brackets. If a file with exactly this
            name exists, the path is that of the file.

    Returns:
        Path of the file, and the page or None.
    """
    found = PAGE.fullmatch(str(path))
    if found is None or os.path.lexists(path):
        return path, None
    return Path(found[1]), int(found[3])


def file_of(path: Path) -> Path:
    """Returns the file that contains an image."""
    return split_page(path)[0]


def name_below(folder: Path, path: Path) -> str:
    """Returns a path relative to a folder, with the same notation on all systems."""
    return Path(os.path.relpath(path, folder)).as_posix()


def axis_of(path: Path) -> int:
    """Returns the axis perpendicular to a named slice, such as 0 for `ct.nii.gz[x45]`; 2 if no axis is named."""
    found = PAGE.fullmatch(str(path))
    return AXES.index(found[2]) if found and found[2] else AXIAL


def page_of(file: Path, page: int, axis: int = AXIAL) -> Path:
    """Returns the path of a page of a file, or of a slice of a volume."""
    return file.with_name(f"{file.name}[{AXES[axis] if axis != AXIAL else ''}{page}]")


def size_of(path: Path) -> int:
    """Returns the size in bytes of the file that contains an image, or -1 if it does not exist."""
    file = file_of(path)
    return file.stat().st_size if file.is_file() else -1


def state_of(path: Path) -> str:
    """Returns a text that changes with the file of an image: its full path, file size and modification time.

    Raises:
        OSError: If the file does not exist.
    """
    stat = file_of(path).stat()
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
