"""Percentiles of the grey values of a set of images, computed in bounded memory."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ccd_lightning.data.depth import DEEP, eight_bits, finite_values, own_window, percentiles, shade
from ccd_lightning.data.formats import read_header, read_picture
from ccd_lightning.data.formats.picture import Range
from ccd_lightning.data.images import progress
from ccd_lightning.data.pixel_file import PixelFile, UInt8Array
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError

Found = TypeVar("Found")
AHEAD = 4  # number of images per processor that are decoded ahead of counting
CHUNKS = 64  # maximum number of chunks of 65,536 neighbouring values that are counted individually; each takes 512 KiB
SIGN = 1 << 31
MAX_INSPECTED = 32  # number of training images inspected, of which at least one must not be flat
LEVELS = 64  # number of 256 grey levels in 8 bits; images with fewer show visible steps


class ValueCounts:
    """Counts of 32-bit numbers, from which exact percentiles are computed.

    Each number is converted to a key of the same order, whose upper and lower 16 bits are counted separately: all upper
    ones, and for each of these the lower ones. If there are too many upper ones, as in floating point, the lower ones
    are counted in a second pass, only where the percentiles lie.

    Args:
        floating: Whether to count float32 instead of int32.
    """

    def __init__(self, floating: bool) -> None:
        self.floating = floating
        self.upper = np.zeros(1 << 16, np.int64)
        self.lower: dict[int, NDArray[np.int64]] | None = {}  # None if there are too many

    def add(self, values: NDArray[np.generic]) -> None:
        """Counts the values."""
        keys = self._keys(values)
        found = np.bincount(keys >> 16, minlength=1 << 16)
        self.upper += found
        if self.lower is not None:
            for upper in np.flatnonzero(found).tolist():
                self.lower.setdefault(upper, np.zeros(1 << 16, np.int64))
                if len(self.lower) > CHUNKS:
                    self.lower = None
                    return
            self._add_lower(self.lower, keys)

    def prepare_again(self, shares: Sequence[float]) -> None:
        """Prepares a second pass over the same numbers to find these quantiles."""
        self.lower = {self._upper_of(share): np.zeros(1 << 16, np.int64) for share in shares}

    def add_again(self, values: NDArray[np.generic]) -> None:
        """Counts the same values in the second pass."""
        assert self.lower is not None
        self._add_lower(self.lower, self._keys(values))

    def quantile(self, share: float) -> float:
        """Returns the smallest number that is not below this fraction of all numbers. May need the second pass."""
        assert self.lower is not None
        upper = self._upper_of(share)
        rank = self._rank(share) - int(self.upper[:upper].sum())
        return self._value((upper << 16) + int(np.searchsorted(np.cumsum(self.lower[upper]), rank)))

    def _rank(self, share: float) -> int:
        return max(1, math.ceil(share * int(self.upper.sum()) - 1e-9))

    def _upper_of(self, share: float) -> int:
        return int(np.searchsorted(np.cumsum(self.upper), self._rank(share)))

    def _add_lower(self, lower: dict[int, NDArray[np.int64]], keys: NDArray[np.int64]) -> None:
        for upper, counts in lower.items():
            counts += np.bincount(keys[keys >> 16 == upper] & 0xFFFF, minlength=1 << 16)

    def _keys(self, values: NDArray[np.generic]) -> NDArray[np.int64]:
        if not self.floating:
            return values.astype(np.int64) + SIGN
        bits = values.astype(np.float32).view(np.uint32).astype(np.int64)
        return np.where(bits >= SIGN, (1 << 32) - 1 - bits, bits + SIGN)  # bits of negative ones are in reverse order

    def _value(self, key: int) -> float:
        if not self.floating:
            return float(key - SIGN)
        bits = key - SIGN if key >= SIGN else (1 << 32) - 1 - key
        return float(np.uint32(bits).view(np.float32)) + 0.0  # converts -0.0 to 0.0


def measure_window(paths: Sequence[Path], preprocessing: Preprocessing) -> tuple[Range | None, int]:
    """Measures percentiles of the grey values of all images with more than 8 bits together.

    The headers of all files are read. Files with more than 8 bits are decoded, with a progress bar, and decoded again
    if any is in floating point. Integers are exact, other values are rounded to float32. NaN, infinity and pixels
    without a measurement are excluded.

    Args:
        paths: Paths of the training images.
        preprocessing: Defines the percentiles (by its window) and the part of each image that is used (by its crop).

    Returns:
        The two values, and the number of images with more than 8 bits. The values are None if the window does not
        depend on the images, or if no image has more than 8 bits.

    Raises:
        UserError: If a file cannot be decoded.
    """
    if (wanted := percentiles(preprocessing.window)) is None:
        return None, 0
    modes = dict(zip(paths, _in_parallel(lambda path: read_header(path).mode, paths), strict=True))
    deep = [path for path, mode in modes.items() if mode in DEEP]
    counts = ValueCounts(floating="F" in modes.values())
    shares = [percent / 100 for percent in wanted]

    def values_of(path: Path) -> NDArray[np.generic]:
        return cropped_values(path, preprocessing)

    for values in progress(_in_parallel(values_of, deep), "Measuring grey values", len(deep)):
        counts.add(values)
    if not counts.upper.any():
        return None, 0
    if counts.lower is None:
        counts.prepare_again(shares)
        for values in progress(_in_parallel(values_of, deep), "Measuring grey values", len(deep)):
            counts.add_again(values)
    low, high = map(counts.quantile, shares)
    return (low, high if high > low else low + 1), len(deep)


def cropped_values(path: Path, preprocessing: Preprocessing) -> NDArray[np.generic]:
    """Returns the grey values of the part of an image that is used, of shape (N,)."""
    picture = read_picture(path)
    if preprocessing.crop == "auto":
        placement = preprocessing.place(shade(picture, own_window(picture)).convert("RGB"), picture.size)
    else:
        placement = preprocessing.place_size(picture.size)
    return finite_values(picture, placement.source)


def count_levels(paths: Sequence[Path], preprocessing: Preprocessing) -> Iterator[tuple[Path, int | UserError]]:
    """Yields how many of 256 grey levels each image keeps once the window is applied, or why it cannot be applied."""

    def levels(path: Path) -> int | UserError:
        try:
            return len(np.unique(np.asarray(eight_bits(read_picture(path), path, preprocessing.window))))
        except UserError as error:
            return error

    yield from zip(paths, progress(_in_parallel(levels, paths), "Counting grey levels", len(paths)), strict=True)


def few_levels(levels: Mapping[Path, int]) -> tuple[Path, str] | None:
    """Returns the image with the fewest grey levels and a message about them, or None if all have LEVELS or more."""
    few = [path for path, count in levels.items() if count < LEVELS]
    if not few:
        return None
    worst = min(few, key=lambda path: levels[path])
    return worst, (
        f"{levels[worst]} grey levels are left by the window, the fewest; {len(few)} of {len(levels)} images with more"
        f" than 8 bits have fewer than {LEVELS}. A narrower --data.window leaves more."
    )


def describe_levels(levels: Mapping[Path, int]) -> str:
    """Describes how many grey levels are left."""
    worst = min(levels, key=lambda path: levels[path])
    median = statistics.median_low(levels.values())
    return (
        f"{median} of 256 are left by the window (median of {len(levels)} images), at worst {levels[worst]} ({worst})"
    )


def refuse_flat(pixels: UInt8Array | PixelFile, window: object, root: Path) -> None:
    """Checks that images are not all flat, as they are if their values lie outside the window. Some are inspected.

    Args:
        pixels: Images (N, H, W, 3) at working size.
        window: The window, with which they were read.
        root: Folder of the data set, used in the error message.

    Raises:
        UserError: If all of them are flat.
    """
    step = math.ceil(len(pixels) / MAX_INSPECTED)
    if all(int(image.min()) == int(image.max()) for image in pixels[::step]):
        why = f" Their grey values may lie beyond data.window, {list(window)}." if isinstance(window, tuple) else ""
        raise UserError(
            f"{root}: all inspected training images have a single grey value.{why} `ccd data check` reports more."
        )


def _in_parallel(function: Callable[[Path], Found], paths: Sequence[Path]) -> Iterator[Found]:
    """Yields the results of a function for each file in order, computing only a few files ahead."""
    step = AHEAD * (os.cpu_count() or 1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for start in range(0, len(paths), step):
                yield from pool.map(function, paths[start : start + step])
        finally:
            pool.shutdown(cancel_futures=True)
