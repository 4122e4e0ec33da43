"""Files that exist, compared with those that a manifest names."""

from __future__ import annotations

import functools
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.naming import is_image, is_junk, is_mask_folder
from ccd_lightning.data.walking import count, count_unread, find

MAX_OTHERS = 200_000  # maximum number of files and folders to look at beside the named ones, which takes about a second
PARTS = 3  # maximum number of left-out folders named in messages


def unused_files(manifest: Manifest, masks: bool = True) -> tuple[str, ...]:
    """Describes which files below the manifest's folder are not in the manifest.

    Args:
        manifest: The images and masks that are used.
        masks: Whether to count unused masks.
    """
    root = manifest.root
    real = functools.cache(os.path.realpath)

    def resolved(path: Path) -> tuple[str, str]:
        folder, name = os.path.split(path)
        return real(folder), name

    used = {resolved(path) for row in manifest.rows for path in (row.path, *row.masks)}
    used |= {resolved(flaw.path) for flaw in manifest.flaws}
    found = find(root)
    images = Counter(_part(path, root) for path in found.images if resolved(path) not in used)
    others = [path for path in found.masks if masks and resolved(path) not in used]
    parts = [f"{count(number, 'image')} in {part}" for part, number in images.most_common(PARTS)]
    if len(images) > PARTS:
        parts.append(f"{count(images.total() - sum(n for _, n in images.most_common(PARTS)), 'image')} elsewhere")
    parts += [count(len(others), "mask")] * bool(others)
    parts += [count_unread(found.unread)] * bool(found.unread)
    return tuple(parts)


def _part(path: Path, root: Path) -> str:
    """Returns the part of a data set that contains a file: its folder, down to the level of splits and kinds."""
    folders = path.relative_to(root).parent.parts
    return "/".join(folders[: 1 + (folders[:1] in (("train",), ("test",)))]) or "the folder itself"


class Listing:
    """The files of folders. Each folder is listed once, which is faster than checking each file."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, bool]] = {}  # by folder: its files, and whether they are named

    def missing(self, paths: Iterable[Path]) -> Iterator[Path]:
        """Yields the files that do not exist, and remembers that the others are named."""
        for path in paths:
            folder, name = os.path.split(path)
            if folder not in self._folders:
                names = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
                self._folders[folder] = dict.fromkeys(names, False)
            if name in self._folders[folder]:
                self._folders[folder][name] = True
            else:
                yield path

    def unnamed_files(self, root: Path, whole: bool = True) -> tuple[str, ...]:
        """Describes how many image files below a folder are not named, by their suffixes. Folders of masks are skipped.

        Args:
            root: The folder.
            whole: Whether to look into all folders below it, rather than only into those that contain named files, at
                any depth.

        Returns:
            A text; none if all are named, none of the named files is below the folder, or there are more than
            `MAX_OTHERS` other files: then the folder is not one of this data set alone.
        """
        number = self._count_unnamed(os.path.realpath(root), whole)
        return (f"{count(number, 'image file')} in no row",) if number else ()

    def _count_unnamed(self, base: str, whole: bool) -> int:
        named = defaultdict[str, set[str]](set)
        for folder, files in self._folders.items():
            named[os.path.realpath(folder)].update(name for name, used in files.items() if used)
        below = [os.path.relpath(folder, base).split(os.sep)[0] for folder in named if _is_below(folder, base)]
        unnamed, others = 0, 0
        for folder, folders, names in os.walk(base) if below else ():
            folders[:] = [name for name in folders if not (is_junk(name) or is_mask_folder(Path(folder, name)))]
            if folder == base and not whole:
                folders[:] = [name for name in folders if name in below]
                names = names if os.curdir in below else []
            others += len(names) + len(folders) - len(named[folder])
            if others > MAX_OTHERS:
                return 0
            unnamed += sum(name not in named[folder] and is_image(name) and not is_junk(name) for name in names)
        return unnamed


def _is_below(folder: str, base: str) -> bool:
    return f"{folder}{os.sep}".startswith(f"{base.rstrip(os.sep)}{os.sep}")
