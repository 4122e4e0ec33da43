"""Inspecting image files, many at once: what they are, and small enough a picture of each to compare them by."""

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

SIDE = 32  # of the thumbnails, in pixels


@dataclass(frozen=True, slots=True, eq=False)
class ImageInfo:
    """What one image file is.

    Attributes:
        size: Width and height in pixels, upright.
        mode: Pillow's name of its channels and depth: "RGB", "L" (grey), "P" (palette), "CMYK", "I;16" ...
        orientation: EXIF's; 1 is upright.
        digest: Of the file's bytes, or of a page's pixels.
        thumbnail: (SIDE, SIDE) uint8, grey, upright; of more than 8 bits, scaled to the image's own range.
    """

    size: tuple[int, int]
    mode: str
    orientation: int
    digest: bytes
    thumbnail: UInt8Array


def inspect(path: Path) -> ImageInfo:
    """Reads one file to its end.

    JPEG files are decoded at an eighth of their size, which reads all of their data in less time.

    Raises:
        UserError: If the file cannot be decoded, or holds several images and none of them is named.
    """
    header, picture = read_header(path), read_picture(path, lambda _: (2 * SIDE, 2 * SIDE))
    file, page = split_page(path)
    # A page's digest is that of its pixels: of a large volume the whole file would be read for each slice.
    content = file.read_bytes() if page is None else repr(picture.size).encode() + picture.image.tobytes()
    shown = shade(picture, own_window(picture)) if picture.image.mode in DEEP else eight_bits(picture, path)
    grey = shown.convert("RGB").convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    digest = hashlib.sha256(content).digest()[:16]
    return ImageInfo(header.size, header.mode, header.orientation, digest, np.asarray(grey))


def inspect_files(
    paths: Sequence[Path], what: str = "Inspecting images"
) -> Iterator[tuple[Path, ImageInfo | UserError]]:
    """Inspects many files in parallel, with a progress bar; what is wrong with one is returned in its place."""
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
