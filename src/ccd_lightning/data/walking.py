"""Search for files below folders, in which every skipped file is counted."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from ccd_lightning.data.annotations import looks_like_labels
from ccd_lightning.data.formats.contents import begins_as_dicom
from ccd_lightning.data.naming import (
    image_stem,
    is_image,
    is_junk,
    is_mask_folder,
    stem_of,
    suffix_of,
    unread_suffix,
)
from ccd_lightning.errors import UserError

LABELS = ".txt"  # suffix of YOLO labels


class Found(NamedTuple):
    """Files below a folder.

    Attributes:
        images: Files to read as images.
        masks: Files that are masks by their folder or name, and YOLO text labels.
        unread: Files that may be images, but have an unsupported format.
    """

    images: list[Path]
    masks: list[Path]
    unread: list[Path]


def entries(folder: Path) -> list[Path]:
    """Returns the files and folders in a folder, sorted.

    Raises:
        UserError: If the folder cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename}: this folder cannot be read ({error.strerror}).") from error


def walk(folder: Path) -> Iterator[Path]:
    """Yields all files below a folder, except system files.

    Links to folders are followed, but each folder is visited once, and no parent of the folder is visited.

    Raises:
        UserError: If a folder cannot be listed.
    """
    base = os.path.realpath(folder)
    seen = {base}
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        kept = []
        for name in sorted(folders):
            inside = os.path.realpath(os.path.join(parent, name))
            if not (is_junk(name) or inside in seen or Path(base).is_relative_to(inside)):
                seen.add(inside)
                kept.append(name)
        folders[:] = kept
        here = Path(parent)
        yield from (here / name for name in sorted(names) if not is_junk(name))


def holds_image(path: Path) -> bool:
    """Returns whether a file is an image by its name or, if it has no or an unknown suffix, by its content."""
    return is_image(path.name) or (unread_suffix(path.name) is not None and begins_as_dicom(path))


def find(folder: Path, base: Path | None = None) -> Found:
    """Finds images, masks and other files below a folder, sorted. Mask folders count below `base` (default: itself)."""
    return Found(*map(sorted, sort_files(walk(folder), base or folder)))


def sort_files(files: Iterable[Path], base: Path) -> Found:
    """Separates images from masks, by folders below `base` and by names such as `a_mask.png` if there is an `a.png`.

    Files with no or an unknown suffix are images if they begin like DICOM files (`holds_image`).
    """
    images, masks, unread = list[Path](), list[Path](), list[Path]()
    of_masks = functools.cache(lambda folder: folder != base and (is_mask_folder(folder) or of_masks(folder.parent)))
    texts = list[Path]()
    for path in files:
        if not holds_image(path):
            unread += [path] * (unread_suffix(path.name) is not None)
            texts += [path] * (suffix_of(path.name) == LABELS)
        elif of_masks(path.parent):
            masks.append(path)
        else:
            images.append(path)
    stems = {stem_of(path.name).lower() for path in images}
    suffixed = {path: stem.lower() for path in images if (stem := image_stem(stem_of(path.name)))}
    if not stems.isdisjoint(suffixed.values()):
        masks += suffixed
        images = [path for path in images if path not in suffixed]
    named = {(path.parent, stem_of(path.name)) for path in images} if texts else set()
    masks += (
        path
        for path in texts
        if (of_masks(path.parent) or (path.parent, stem_of(path.name)) in named) and looks_like_labels(path)
    )
    return Found(images, masks, unread)


def count_unread(paths: Iterable[Path]) -> str:
    """Describes how many files have an unsupported format. Empty if there are none."""
    kinds = Counter(unread_suffix(path.name) or "" for path in paths)
    if not kinds:
        return ""
    names = ", ".join(f"{kind} ({number})" if len(kinds) > 1 else kind for kind, number in sorted(kinds.items()))
    return f"{count(kinds.total(), 'file')} of types that are not read ({names})"


def count(number: int, what: str) -> str:
    """Returns a number with its noun, such as "1 file" and "2 files"."""
    return f"{number} {what}{'s' * (number != 1)}"
