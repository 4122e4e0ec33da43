"""Decoding images once, at the size they are worked on."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from ccd_lightning.data.depth import SIXTEEN, Range, eight_bits
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.regions import resize_regions
from ccd_lightning.errors import UserError
from ccd_lightning.memory import available_memory, require
from ccd_lightning.writing import atomic_write

Item = TypeVar("Item")
UInt8Array = npt.NDArray[np.uint8]
ORIENTATION = 0x0112  # EXIF's tag; from 5 on, width and height change places
DECODING = 3  # of what a file's pixels are: an array kept by another version is not taken for the same
SUBFILE = 254  # TIFF's tag of what a page is; its lowest bit marks a smaller version of another page
ONE_IMAGE = ("MPO", "PSD")  # formats whose further frames are previews or layers of the first
LABELS = 16  # a mask of at most so many different values, all dark, holds labels


def read_image(path: Path, preprocessing: Preprocessing) -> UInt8Array:
    """Reads one image as (size, size, 3) uint8 RGB.

    Raises:
        UserError: If the file cannot be decoded, or has more than 8 bits and cannot be scaled.
    """
    return np.asarray(preprocessing.apply(open_rgb(path, preprocessing.range)))


def open_rgb(path: Path, limits: Range | None = None) -> Image.Image:
    """Reads one image at its own size, as 8-bit RGB; `limits` are those of `eight_bits`.

    Raises:
        UserError: If the file cannot be decoded, or has more than 8 bits and cannot be scaled.
    """
    return eight_bits(open_image(path), path, limits).convert("RGB")


def read_mask(path: Path, preprocessing: Preprocessing) -> npt.NDArray[np.bool_]:
    """Reads one mask as (size, size) bool.

    Abnormal is what is brighter than half of the range in any channel. In a file that holds nothing as bright it is
    whatever is not 0 where the values are few, as labels 0 and 1 are, and else, as in a dim attention map, whatever is
    brighter than half of the file's own maximum.

    Areas are kept, and so is at least one pixel of each region, however small it is (`resize_regions`).

    Raises:
        UserError: If the file cannot be decoded.
    """
    return resize_regions(preprocessing.cropped(abnormal_pixels(open_image(path))), preprocessing.size)


def abnormal_pixels(mask: Image.Image) -> npt.NDArray[np.bool_]:
    """Which of a mask's pixels are abnormal, (height, width), by the rule of `read_mask`."""
    values = np.atleast_3d(np.asarray(mask if mask.mode in ("L", "I", "F", *SIXTEEN) else mask.convert("RGB")))
    half = 32767 if mask.mode in SIXTEEN else 127
    bright: Any = values > half
    if mask.mode == "P" and not bright.any():
        bright = np.atleast_3d(np.asarray(mask)) > 0  # colours that say nothing: what counts is the index
    elif not bright.any():
        bright = np.asarray(values > (0 if len(np.unique(values)) <= LABELS else float(values.max()) / 2))
    abnormal: npt.NDArray[np.bool_] = bright.any(axis=2)
    return abnormal


def open_image(path: Path) -> Image.Image:
    """Decodes a file of one image, turned as its EXIF orientation says.

    Raises:
        UserError: If the file cannot be decoded, or holds several images.
    """
    with decoding(path), Image.open(path) as image:
        refuse_pages(image, path)
        image.load()
        return ImageOps.exif_transpose(image)


def refuse_pages(image: Image.Image, path: Path) -> None:
    """Sees that an opened file holds one image, as of several the first would stand for all.

    Previews do not count: smaller versions of a TIFF file's image, and what a camera's JPEG (MPO) holds beside it.

    Raises:
        UserError: If there are several pages or frames.
    """
    count = 1 if image.format in ONE_IMAGE else getattr(image, "n_frames", 1)
    if count > 1 and image.format == "TIFF":
        count = sum(not _is_preview(image, page) for page in range(count))
        image.seek(0)
    if count > 1:
        raise UserError(
            f"{path}: {count} pages (or frames) in one file, but one image is expected. Split it into one file per"
            " image, such as with ImageMagick: magick FILE page_%03d.png"
        )


def _is_preview(image: Image.Image, page: int) -> bool:
    image.seek(page)
    tags: Any = getattr(image, "tag_v2", {})
    return page > 0 and bool(tags.get(SUBFILE, 0) & 1)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in pixels of an opened file, turned as its EXIF orientation says; nothing is decoded."""
    width, height = image.size
    exif = Image.Image.getexif(image)  # that of a PNG file's own class decodes it
    lying = exif.get(ORIENTATION, 1) >= 5 and image.format != "TIFF"  # whose size Pillow has turned already
    return (height, width) if lying else (width, height)


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Names the file where Pillow, which raises many kinds of error, cannot decode it."""
    try:
        yield
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be decoded ({error}). Replace or remove this file.") from error


def load_images(
    paths: Sequence[Path], preprocessing: Preprocessing, cache_dir: Path | None = None, processes: int = 1
) -> UInt8Array:
    """Decodes images into one array, in parallel, with a progress bar.

    Args:
        paths: The files.
        preprocessing: The size and crop to bring them to.
        cache_dir: Where to keep the array on disk, memory-mapped, so that workers, ranks and later runs share it. A
            changed file, size, crop or range makes a new one. None keeps the array in memory.
        processes: On this machine that load the same images; without a cache each keeps an array of its own.

    Returns:
        (len(paths), 3, size, size) uint8 RGB, channels first, which is how every epoch wants them.

    Raises:
        UserError: If a file cannot be decoded, which is named, or memory or disk does not suffice.
    """
    shape = (len(paths), 3, preprocessing.size, preprocessing.size)
    what = f"{len(paths)} decoded images of {preprocessing.size} px"
    if cache_dir is None:
        way_out = "Keep them on disk with --data.cache_dir DIR, or choose a smaller --data.size."
        require(processes * math.prod(shape), available_memory(), f"{what} in memory", way_out)
        images = np.empty(shape, np.uint8)
        _decode_into(images, paths, preprocessing)
        return images
    file = cache_dir / f"{_fingerprint(paths, preprocessing)}.npy"
    if not file.is_file():
        cache_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache_dir).free
        way_out = "Give --data.cache_dir a larger disk, or choose a smaller --data.size."
        require(math.prod(shape), free, f"{what} in {cache_dir}", way_out)
        with atomic_write(file) as partial:
            images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            _decode_into(images, paths, preprocessing)
            images.flush()
    return np.load(file, mmap_mode="r")  # type: ignore[no-any-return]


def progress(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The items, with a progress bar on a terminal's stderr, which vanishes at the end."""
    console = Console(stderr=True)
    yield from track(items, what, total, console=console, transient=True, disable=not console.is_terminal)


def _decode_into(images: UInt8Array, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(lambda path: read_image(path, preprocessing), paths)
        try:
            for index, image in enumerate(progress(decoded, "Reading images", len(paths))):
                images[index] = image.transpose(2, 0, 1)
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise


def _fingerprint(paths: Sequence[Path], preprocessing: Preprocessing) -> str:
    limits = "" if preprocessing.range is None else f" {preprocessing.range}"  # other images keep their cache
    digest = hashlib.sha256(f"{DECODING} {preprocessing.key}{limits}".encode())
    for path in paths:
        stat: Any = path.stat()
        digest.update(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
