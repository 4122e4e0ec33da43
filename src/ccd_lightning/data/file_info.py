"""Inspecting image files, many at once: what they are, and small enough a picture of each to compare them by."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccd_lightning.data.depth import eight_bits, own_range
from ccd_lightning.data.formats import read_header, read_picture
from ccd_lightning.data.formats.picture import Range
from ccd_lightning.data.formats.pillow import SIXTEEN, orientation_of
from ccd_lightning.data.images import UInt8Array, open_image, progress
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.sources import split_page
from ccd_lightning.errors import UserError

SIDE = 32  # of the thumbnails, in pixels
CUT = 1e-4  # share of the training pixels below the range of grey values, and as much above it


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
        UserError: If the file cannot be decoded, or holds several images.
    """
    picture = read_picture(path, lambda _: (2 * SIDE, 2 * SIDE))
    image, (file, page) = picture.image, split_page(path)
    # A page's digest is that of its pixels: of a large volume the whole file would be read for each slice.
    content = file.read_bytes() if page is None else repr(picture.size).encode() + image.tobytes()
    upright = eight_bits(image, path, own_range(image)).convert("RGB")
    grey = upright.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    digest = hashlib.sha256(content).digest()[:16]
    return ImageInfo(picture.size, image.mode, orientation_of(file), digest, np.asarray(grey))


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


def measure_range(paths: Sequence[Path], preprocessing: Preprocessing) -> tuple[Range | None, int]:
    """Finds the range of 16-bit images: all of their grey values but a share of CUT at either end.

    Headers of all files are read; those with 16 bits are decoded, with a progress bar.

    Args:
        paths: The training images.
        preprocessing: Its crop says which part of each counts.

    Returns:
        The range, None without 16-bit images, and how many there are.

    Raises:
        UserError: If a file cannot be decoded, or has more than 16 bits.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            modes = dict(zip(paths, pool.map(_mode, paths), strict=True))
            if unknown := next((path for path, mode in modes.items() if mode in ("I", "F")), None):
                eight_bits(open_image(unknown), unknown)  # which says why not
            deep = [path for path, mode in modes.items() if mode in SIXTEEN]
            counts = np.zeros(1 << 16, np.int64)
            counted = pool.map(lambda path: _grey_values(path, preprocessing), deep)
            for found in progress(counted, "Measuring grey values", len(deep)):
                counts += found
        finally:
            pool.shutdown(cancel_futures=True)
    if not counts.any():
        return None, 0
    low, high = np.searchsorted(np.cumsum(counts) / counts.sum(), (CUT, 1 - CUT)).tolist()
    return (float(low), float(max(high, low + 1))), len(deep)


def _mode(path: Path) -> str:
    return read_header(path).mode


def _grey_values(path: Path, preprocessing: Preprocessing) -> NDArray[np.int64]:
    image = open_image(path)
    values = np.asarray(image.crop(preprocessing.box(*image.size)), np.uint16)
    return np.bincount(values.ravel(), minlength=1 << 16)
