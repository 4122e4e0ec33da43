"""Cache of file inspections between runs, so that a file is decoded again only if it has changed."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ccd_lightning.data.file_info import ImageInfo, inspect_files
from ccd_lightning.data.sources import state_of
from ccd_lightning.writing import atomic_write

FILE = "thumbnails_2.npz"  # with the version of the thumbnail format


def cached_infos(
    paths: Sequence[Path], cache_dir: Path | None, what: str = "Inspecting images"
) -> dict[Path, ImageInfo]:
    """Inspects files. Files in the cache are not opened.

    Args:
        paths: Paths of the files.
        cache_dir: Folder of the cache, which is keyed by path, size and modification time. None for no cache.
        what: Text next to the progress bar.

    Returns:
        The properties of the files. Files that cannot be read are missing.
    """
    file = cache_dir / FILE if cache_dir else None
    kept = _read(file) if file and file.is_file() else {}
    keys = {path: key for path in paths if (key := _key(path))}
    fresh = [path for path, key in keys.items() if key not in kept]
    seen = {path: one for path, one in inspect_files(fresh, what) if isinstance(one, ImageInfo)}
    if file and seen:
        changed = {str(path.resolve()) for path in seen}
        others = {key: one for key, one in kept.items() if key.rpartition("|")[0].rpartition("|")[0] not in changed}
        _write(file, others | {keys[path]: one for path, one in seen.items()})
    return {path: kept[key] for path, key in keys.items() if key in kept} | seen


def _key(path: Path) -> str:
    try:
        return state_of(path)
    except OSError:
        return ""


def _read(file: Path) -> dict[str, ImageInfo]:
    """Reads the cache. Empty if the file is damaged."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            columns = [stored[name] for name in ("keys", "sizes", "modes", "orientations", "digests", "thumbnails")]
    except (OSError, EOFError, LookupError, ValueError, zipfile.BadZipFile):
        return {}
    return {
        str(key): ImageInfo((int(size[0]), int(size[1])), str(mode), int(orientation), digest.tobytes(), thumbnail)
        for key, size, mode, orientation, digest, thumbnail in zip(*columns, strict=True)
    }


def _write(file: Path, infos: dict[str, ImageInfo]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = list(infos.values())
    with atomic_write(file) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            allow_pickle=False,
            keys=np.array(list(infos)),
            sizes=np.array([row.size for row in rows], np.int64),
            modes=np.array([row.mode for row in rows]),
            orientations=np.array([row.orientation for row in rows], np.int64),
            digests=np.array([np.frombuffer(row.digest, np.uint8) for row in rows]),
            thumbnails=np.array([row.thumbnail for row in rows]),
        )
