"""Decoding of images, once, at working size."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import track

from ccd_lightning.data.depth import WindowOption, eight_bits
from ccd_lightning.data.formats import read_header, read_picture
from ccd_lightning.data.pixel_file import PixelFile, UInt8Array
from ccd_lightning.data.placement import Placement
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.sources import state_of
from ccd_lightning.memory import available_memory, require
from ccd_lightning.reading import check_regular
from ccd_lightning.writing import atomic_write

Item = TypeVar("Item")
Result = TypeVar("Result")
DECODING = 4  # version of the decoding: arrays cached by other versions are not reused
IN_MEMORY = 2 * 10**9  # maximum bytes of decoded images in memory, for all processes on a machine together
PATIENCE = 2.0  # seconds after which a progress bar is shown
QUEUED = 10_000  # items that wait in a thread pool, each of which takes a kilobyte
PLACEMENT = 10  # number of values in `Placement.numbers`


class Placed(NamedTuple):
    """An image at working size.

    Attributes:
        pixels: RGB pixels (H, W, 3), uint8.
        placement: Its position in the working image, and the part of the original that it shows.
    """

    pixels: UInt8Array
    placement: Placement


class Images(NamedTuple):
    """Images at working size.

    Attributes:
        pixels: RGB pixels (N, 3, H, W), uint8, channels first as needed in every epoch; in memory or in a file.
        placements: `Placement.numbers` of each image, (N, 10) int32.
    """

    pixels: UInt8Array | PixelFile
    placements: npt.NDArray[np.int32]

    def placement(self, index: int) -> Placement:
        """Returns the placement of an image."""
        return Placement.from_numbers(self.placements[index].tolist())


def read_image(path: Path, preprocessing: Preprocessing) -> UInt8Array:
    """Reads one image as (H, W, 3) uint8 RGB, at working size.

    Raises:
        UserError: If the file cannot be decoded, or has more than 8 bits and cannot be scaled.
    """
    return read_placed(path, preprocessing).pixels


def read_placed(path: Path, preprocessing: Preprocessing) -> Placed:
    """Reads one image at working size, with its placement.

    Raises:
        UserError: If the file cannot be decoded, or has more than 8 bits and cannot be scaled.
    """
    picture = read_picture(path, preprocessing.least)
    image = eight_bits(picture, path, preprocessing.window).convert("RGB")
    placement = preprocessing.place(image, picture.size)
    return Placed(np.asarray(preprocessing.apply(image, placement)), placement)


def find_placement(path: Path, preprocessing: Preprocessing) -> Placement:
    """Returns the placement of an image at working size. Pixels are read only if the crop depends on them."""
    if preprocessing.crop == "auto":
        return read_placed(path, preprocessing).placement
    return preprocessing.place_size(read_header(path).size)


def open_rgb(path: Path, window: WindowOption = None) -> Image.Image:
    """Reads one image at its original size as 8-bit RGB, using a window (`depth.parse_window`).

    Raises:
        UserError: If the file cannot be decoded, or has more than 8 bits and cannot be scaled.
    """
    return eight_bits(read_picture(path), path, window).convert("RGB")


def open_image(path: Path) -> Image.Image:
    """Decodes an image with the file's own grey values, and applies its EXIF orientation.

    Raises:
        UserError: If the file cannot be decoded, or contains several images and the path names none of them.
    """
    return read_picture(path).image


def load_images(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    cache_dir: Path | None = None,
    processes: int = 1,
    pickled: bool = False,
) -> Images:
    """Decodes images once, in parallel, with a progress bar.

    Args:
        paths: Paths of the images.
        preprocessing: Crop, working size and window.
        cache_dir: Folder in which decoded images are stored, so that workers, ranks and later runs share them. A
            changed file, size, crop or window creates a new file. None keeps images in memory up to `IN_MEMORY` bytes,
            and in the user's cache folder beyond that.
        processes: Number of processes on this machine that load the same images. In memory, each has its own array.
        pickled: Whether the images are sent to other processes, each of which would copy what is in memory. If so, they
            are stored in a file.

    Returns:
        The images, in the order of the paths.

    Raises:
        UserError: If a file cannot be decoded (the message names it), or there is not enough memory or disk space.
    """
    shape = (len(paths), 3, *preprocessing.shape)
    what = f"{len(paths)} decoded images of {preprocessing.size_in_words} px"
    together = processes * math.prod(shape)
    if cache_dir is None and together <= IN_MEMORY and not pickled:
        advice = "Keep them on disk with --data.cache_dir DIR, or choose a smaller --data.size."
        require(together, available_memory(), f"{what} in memory", advice)
        pixels = np.empty(shape, np.uint8)
        return Images(pixels, _decode(paths, preprocessing, pixels.__setitem__))
    if cache_dir is None:
        cache_dir = _user_cache()
    file = cache_dir / f"{_fingerprint(paths, preprocessing)}.npy"
    if (kept := _read_cache(file, shape)) is not None:
        return kept
    cache_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache_dir).free
    advice = "Give --data.cache_dir a larger disk, or choose a smaller --data.size."
    require(math.prod(shape), free, f"{what} in {cache_dir}", advice)
    with atomic_write(file) as partial, atomic_write(_beside(file)) as small:
        with partial.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"shape": shape, "fortran_order": False, "descr": "|u1"})
            placements = _decode(paths, preprocessing, lambda _, image: stream.write(image.tobytes()))
        with small.open("wb") as stream:
            np.save(stream, placements)
    return Images(PixelFile(file), placements)


def _user_cache() -> Path:
    """Returns the folder for decoded images that do not fit in memory. Only the user can access it."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path("~/.cache").expanduser()) / "ccd-lightning" / "images"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _read_cache(file: Path, shape: tuple[int, ...]) -> Images | None:
    """Reads images from a cache file. Returns None if the file does not exist or is damaged."""
    try:
        check_regular(file)
        check_regular(_beside(file))
        images = Images(PixelFile(file), np.load(_beside(file)))
    except (OSError, EOFError, ValueError, SyntaxError, MemoryError):
        return None
    sound = images.pixels.shape == shape and images.placements.shape == (shape[0], PLACEMENT)
    return images if sound and images.placements.dtype == np.int32 else None


def _beside(file: Path) -> Path:
    """Returns the path of the placements that belong to a cache file."""
    return file.with_suffix(".placements.npy")


def progress(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Yields the items and shows a progress bar on stderr, if it is a terminal. The bar disappears at the end."""
    console = Console(stderr=True)
    # Not `disable`, with which older versions of rich print an empty line.
    yield from track(items, what, total, console=console, transient=True) if console.is_terminal else items


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item], what: str) -> list[Result]:
    """Applies `work` to all items in parallel and keeps their order. After `PATIENCE` seconds, shows a progress bar."""
    begun, results = time.monotonic(), list[Result]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            parts = (items[start : start + QUEUED] for start in range(0, len(items), QUEUED))
            coming = (result for part in parts for result in pool.map(work, part))
            while len(results) < len(items) and time.monotonic() < begun + PATIENCE:
                results.append(next(coming))
            if rest := len(items) - len(results):
                results += progress(coming, what, rest)
        finally:
            pool.shutdown(cancel_futures=True)
    return results


def _decode(
    paths: Sequence[Path], preprocessing: Preprocessing, keep: Callable[[int, UInt8Array], object]
) -> npt.NDArray[np.int32]:
    """Passes each image (3, H, W) and its index to `keep`, in order, and returns the placements (N, 10)."""
    placements = np.empty((len(paths), PLACEMENT), np.int32)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(lambda path: read_placed(path, preprocessing), paths)
        try:
            for index, (pixels, placement) in enumerate(progress(decoded, "Reading images", len(paths))):
                keep(index, pixels.transpose(2, 0, 1))
                placements[index] = placement.numbers()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return placements


def _fingerprint(paths: Sequence[Path], preprocessing: Preprocessing) -> str:
    window = "" if preprocessing.window is None else f" {preprocessing.window}"  # keeps caches of 8-bit images valid
    digest = hashlib.sha256(f"{DECODING} {preprocessing.key}{window}".encode())
    for path in paths:
        digest.update(os.fsencode(f"{state_of(path)}\n"))
    return digest.hexdigest()[:32]
