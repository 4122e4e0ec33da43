"""Looking at image files, many at once: what they are, and small enough a picture of each to compare them by."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ccd_lightning.data.images import ORIENTATION, UInt8Array, decoding, eight_bits, progress
from ccd_lightning.errors import UserError

SIDE = 32  # of the thumbnails, in pixels


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one image file is.

    Attributes:
        size: Width and height in pixels, as they lie in the file.
        mode: Pillow's name of its channels and depth: "RGB", "L" (grey), "P" (palette), "CMYK", "I;16" ...
        orientation: EXIF's; 1 is upright.
        pages: More than one in some TIFF files, of which the first is read.
        digest: Of the file's bytes.
        thumbnail: (SIDE, SIDE) uint8, grey, upright.
    """

    size: tuple[int, int]
    mode: str
    orientation: int
    pages: int
    digest: bytes
    thumbnail: UInt8Array


def look(path: Path) -> Look:
    """Reads one file to its end.

    JPEG files are decoded at an eighth of their size, which reads all of their data in less time.

    Raises:
        UserError: If the file cannot be decoded, or its pixels have an unknown range.
    """
    with decoding(path):
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            size, mode, pages = image.size, image.mode, getattr(image, "n_frames", 1)
            orientation = image.getexif().get(ORIENTATION, 1)
            image.draft(None, (2 * SIDE, 2 * SIDE))
            image.load()
            upright = eight_bits(ImageOps.exif_transpose(image), path)
    grey = upright.convert("RGB").convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return Look(size, mode, orientation, pages, hashlib.sha256(content).digest()[:16], np.asarray(grey))


def look_at(paths: Sequence[Path], what: str = "Looking at images") -> Iterator[tuple[Path, Look | UserError]]:
    """Looks at many files in parallel, with a progress bar; what is wrong with one is returned in its place."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            yield from zip(paths, progress(pool.map(_try, paths), what, len(paths)), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _try(path: Path) -> Look | UserError:
    try:
        return look(path)
    except UserError as error:
        return error
