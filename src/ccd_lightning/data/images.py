"""Decoding images once, at the size they are worked on."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.progress import track

from ccd_lightning.errors import UserError

UInt8Array = npt.NDArray[np.uint8]
SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Geometry:
    """How a file becomes a square image.

    Attributes:
        size: Side of the square, in pixels.
        crop: Left, top, right and bottom as fractions of width and height; None keeps the whole image.
    """

    size: int
    crop: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        """Checks both.

        Raises:
            UserError: If there is no pixel, or the crop is empty or not inside of the image.
        """
        if self.size < 1:
            raise UserError(f"data.size is {self.size}, but must be 1 or more.")
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise UserError(
                    f"data.crop is {list(self.crop)}, but must be left < right and top < bottom, all within [0, 1]."
                )

    def apply(self, image: Image.Image, resample: Image.Resampling) -> Image.Image:
        """Crops, to whole pixels, and resizes."""
        if self.crop is not None:
            left, top, right, bottom = self.crop
            width, height = image.size
            image = image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
        return image.resize((self.size, self.size), resample)


def read_image(path: Path, geometry: Geometry) -> UInt8Array:
    """Reads one image as (size, size, 3) uint8 RGB.

    Raises:
        UserError: If the file cannot be decoded.
    """
    return np.asarray(geometry.apply(_eight_bits(_open(path), path).convert("RGB"), Image.Resampling.BILINEAR))


def read_mask(path: Path, geometry: Geometry) -> npt.NDArray[np.bool_]:
    """Reads one mask as (size, size) bool.

    Abnormal is what is brighter than half of the range in any channel; in a file that holds nothing as bright, such as
    one of labels 0 and 1, whatever is not 0.

    Raises:
        UserError: If the file cannot be decoded.
    """
    mask = _open(path)
    values = np.atleast_3d(np.asarray(mask if mask.mode in ("L", "I", "F", *SIXTEEN) else mask.convert("RGB")))
    half = 32767 if mask.mode in SIXTEEN else 127
    bright = values > half if (values > half).any() else values > 0
    if mask.mode == "P" and values.max() <= half:
        bright = np.atleast_3d(np.asarray(mask)) > 0  # colours that say nothing: what counts is the index
    return np.array(geometry.apply(Image.fromarray(bright.any(axis=2)), Image.Resampling.NEAREST))


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """Scales 16 bits to 8; other depths have no range to scale by."""
    if image.mode in SIXTEEN:
        values = np.asarray(image, np.uint16)
        if 0 < values.max() < 4096:
            raise UserError(
                f"{path}: 16 bits of which only the lowest are used (the brightest pixel is {values.max()})."
                " Export it scaled to the whole range, or with 8 bits."
            )
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise UserError(
            f"{path}: pixels of {'32 bits' if image.mode == 'I' else 'floating point'}, whose range is not known."
            " Export it with 8 or 16 bits."
        )
    return image


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be decoded ({error}). Replace or remove this file.") from error


def load_images(paths: Sequence[Path], geometry: Geometry, cache_dir: Path | None = None) -> UInt8Array:
    """Decodes images into one array, in parallel, with a progress bar.

    Args:
        paths: The files.
        geometry: The size and crop to bring them to.
        cache_dir: Where to keep the array on disk, memory-mapped, so that workers, ranks and later runs share it. A
            changed file, size or crop makes a new one. None keeps the array in memory.

    Returns:
        (len(paths), size, size, 3) uint8 RGB.

    Raises:
        UserError: If a file cannot be decoded; it is named.
    """
    shape = (len(paths), geometry.size, geometry.size, 3)
    if cache_dir is None:
        images = np.empty(shape, np.uint8)
        _decode_into(images, paths, geometry)
        return images
    file = cache_dir / f"{_fingerprint(paths, geometry)}.npy"
    if not file.is_file():
        cache_dir.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=cache_dir, suffix=".partial")
        os.close(descriptor)
        partial = Path(name)
        try:
            images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            _decode_into(images, paths, geometry)
            images.flush()
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return np.load(file, mmap_mode="r")  # type: ignore[no-any-return]


def _decode_into(images: UInt8Array, paths: Sequence[Path], geometry: Geometry) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(lambda path: read_image(path, geometry), paths)
        try:
            for index, image in enumerate(track(decoded, "Reading images", total=len(paths), transient=True)):
                images[index] = image
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise


def _fingerprint(paths: Sequence[Path], geometry: Geometry) -> str:
    digest = hashlib.sha256(repr(geometry).encode())
    for path in paths:
        stat: Any = path.stat()
        digest.update(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
