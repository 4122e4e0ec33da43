"""What names an image: a file, or one page of a file that holds several."""

from __future__ import annotations

import os
import re
from pathlib import Path

PAGE = re.compile(r"(.+)\[([xyz]?)(\d{1,9})\]", re.DOTALL)
AXES = "xyz"  # of a volume: to the right, to the front, upwards
AXIAL = 2


def split_page(path: Path) -> tuple[Path, int | None]:
    """The file and the page that a path such as `stack.tif[3]` names, as ImageMagick writes it.

    Args:
        path: Of a file, or of a file with the number of a page, from 0, in brackets. A file that has such a name itself
            is taken as it is.

    Returns:
        The file, and the page; None where none is named.
    """
    found = PAGE.fullmatch(str(path))
    if found is None or os.path.lexists(path):
        return path, None
    return Path(found[1]), int(found[3])


def file_of(path: Path) -> Path:
    """The file that holds an image."""
    return split_page(path)[0]


def name_below(folder: Path, path: Path) -> str:
    """A path relative to a folder, written in the same way on every system."""
    return Path(os.path.relpath(path, folder)).as_posix()


def axis_of(path: Path) -> int:
    """Across which axis of a volume the named page lies, such as 0 in `ct.nii.gz[x45]`; 2 where none is named."""
    found = PAGE.fullmatch(str(path))
    return AXES.index(found[2]) if found and found[2] else AXIAL


def page_of(file: Path, page: int, axis: int = AXIAL) -> Path:
    """The path that names a page of a file, or a slice of a volume."""
    return file.with_name(f"{file.name}[{AXES[axis] if axis != AXIAL else ''}{page}]")


def size_of(path: Path) -> int:
    """Bytes of the file that holds an image; -1 where there is none."""
    file = file_of(path)
    return file.stat().st_size if file.is_file() else -1


def state_of(path: Path) -> str:
    """The full path of an image with the size of its file and the time when it was changed: another one, another image.

    Raises:
        OSError: If the file is not there.
    """
    stat = file_of(path).stat()
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
