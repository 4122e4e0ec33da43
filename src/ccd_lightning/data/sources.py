"""What names an image: a file, or one page of a file that holds several."""

from __future__ import annotations

import os
import re
from pathlib import Path

PAGE = re.compile(r"(.+)\[(\d{1,9})\]", re.DOTALL)


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
    return Path(found[1]), int(found[2])


def file_of(path: Path) -> Path:
    """The file that holds an image."""
    return split_page(path)[0]


def page_of(file: Path, page: int) -> Path:
    """The path that names a page of a file."""
    return file.with_name(f"{file.name}[{page}]")
