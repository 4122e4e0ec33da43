"""Inspecting image files, many at once: what they are, and small enough a picture of each to compare them by."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ccd_lightning.data.depth import eight_bits, own_range
from ccd_lightning.data.formats.picture import Range
from ccd_lightning.data.formats.pillow import ORIENTATION, SIXTEEN, decoding
from ccd_lightning.data.images import UInt8Array, open_image, progress
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError

SIDE = 32  # of the thumbnails, in pixels
CUT = 1e-4  # share of the training pixels below the range of grey values, and as much above it


@dataclass(frozen=True, slots=True, eq=False)
class ImageInfo:
    """What one image file is.

    Attributes:
        size: Width and height in pixels, as they lie in the file.
        mode: Pillow's name of its channels and depth: "RGB", "L" (grey), "P" (palette), "CMYK", "I;16" ...
        orientation: EXIF's; 1 is upright.
        digest: Of the file's bytes.
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
    with decoding(path):
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            size, mode = image.size, image.mode
            orientation = image.getexif().get(ORIENTATION, 1)
            image.draft(None, (2 * SIDE, 2 * SIDE))
            image.load()
            upright = eight_bits(ImageOps.exif_transpose(image), path, own_range(image))
    grey = upright.convert("RGB").convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return ImageInfo(size, mode, orientation, hashlib.sha256(content).digest()[:16], np.asarray(grey))


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
    with decoding(path), Image.open(path) as image:
        return image.mode


def _grey_values(path: Path, preprocessing: Preprocessing) -> NDArray[np.int64]:
    image = open_image(path)
    values = np.asarray(image.crop(preprocessing.box(*image.size)), np.uint16)
    return np.bincount(values.ravel(), minlength=1 << 16)
