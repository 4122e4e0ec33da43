"""Inspection of many image files: their properties, and a thumbnail of each for comparisons."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ccd_lightning.data.depth import DEEP, eight_bits, own_window, shade
from ccd_lightning.data.formats import read_header, read_picture
from ccd_lightning.data.images import progress
from ccd_lightning.data.pixel_file import UInt8Array
from ccd_lightning.data.sources import split_page
from ccd_lightning.errors import UserError

SIDE = 32  # side of the thumbnails in pixels


@dataclass(frozen=True, slots=True, eq=False)
class ImageInfo:
    """Properties of an image file.

    Attributes:
        size: Width and height in pixels, after the EXIF orientation is applied.
        mode: Pillow mode: "RGB", "L" (grey), "P" (palette), "CMYK", "I;16" ...
        orientation: EXIF orientation; 1 is upright.
        digest: Digest of the file's bytes, or of a page's pixels.
        thumbnail: Upright grey thumbnail (SIDE, SIDE), uint8. Images of more than 8 bits are scaled to their own range.
    """

    size: tuple[int, int]
    mode: str
    orientation: int
    digest: bytes
    thumbnail: UInt8Array


def inspect(path: Path) -> ImageInfo:
    """Inspects one file, reading all of it.

    JPEG files are decoded at a fraction of their size, which reads all of their data in less time.

    Raises:
        UserError: If the file cannot be decoded, or contains several images and the path names none of them.
    """
    header, picture = read_header(path), read_picture(path, lambda _: (2 * SIDE, 2 * SIDE))
    file, page = split_page(path)
    # Digests of pages are computed from their pixels: otherwise a large volume would be read in full for each slice.
    content = file.read_bytes() if page is None else repr(picture.size).encode() + picture.image.tobytes()
    shown = shade(picture, own_window(picture)) if picture.image.mode in DEEP else eight_bits(picture, path)
    grey = shown.convert("RGB").convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    digest = hashlib.sha256(content).digest()[:16]
    return ImageInfo(header.size, header.mode, header.orientation, digest, np.asarray(grey))


def inspect_files(
    paths: Sequence[Path], what: str = "Inspecting images"
) -> Iterator[tuple[Path, ImageInfo | UserError]]:
    """Inspects many files in parallel, with a progress bar. For a file that cannot be read, the error is returned."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            yield from zip(paths, progress(pool.map(_try, paths), what, len(paths)), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _try(path: Path) -> ImageInfo | UserError:
    try:
        return inspect(path)
    except UserError as error:
        return error
