"""The grey values of a set of images: their percentiles, found in bounded memory."""

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
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError

Found = TypeVar("Found")
AHEAD = 4  # images per processor that are decoded before they are counted
CHUNKS = 64  # of 65,536 neighbouring values, of which each value is counted; they take 512 KiB each
SIGN = 1 << 31
LEVELS = 64  # of 256 in 8 bits, below which an image has steps where it had grey values


class ValueCounts:
    """Counts of 32-bit numbers, whose percentiles are exact.

    A number becomes a key that is ordered as it is, of which the upper and the lower 16 bits are counted apart: all of
    the upper ones, and of each of these the lower ones. Where these are too many, as in floating point, lower ones are
    counted in a second pass, where the percentiles are.

    Args:
        floating: Whether to count float32, rather than int32.
    """

    def __init__(self, floating: bool) -> None:
        self.floating = floating
        self.upper = np.zeros(1 << 16, np.int64)
        self.lower: dict[int, NDArray[np.int64]] | None = {}  # None where there are too many

    def add(self, values: NDArray[np.generic]) -> None:
        """Counts numbers."""
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
        """Prepares for a second pass over the same numbers, to find these quantiles."""
        self.lower = {self._upper_of(share): np.zeros(1 << 16, np.int64) for share in shares}

    def add_again(self, values: NDArray[np.generic]) -> None:
        """Counts the same numbers in the second pass."""
        assert self.lower is not None
        self._add_lower(self.lower, self._keys(values))

    def quantile(self, share: float) -> float:
        """The smallest number that is not below this share of all; two passes may be needed first."""
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
        return np.where(bits >= SIGN, (1 << 32) - 1 - bits, bits + SIGN)  # the bits of negative ones order backwards

    def _value(self, key: int) -> float:
        if not self.floating:
            return float(key - SIGN)
        bits = key - SIGN if key >= SIGN else (1 << 32) - 1 - key
        return float(np.uint32(bits).view(np.float32)) + 0.0  # which -0.0 becomes 0.0 by


def measure_window(paths: Sequence[Path], preprocessing: Preprocessing) -> tuple[Range | None, int]:
    """Finds the percentiles of the grey values of images with more than 8 bits, of all images together.

    Headers of all files are read; those with more than 8 bits are decoded, with a progress bar, and once more where one
    is in floating point. Whole numbers are exact, others rounded to float32. NaN, infinity and pixels without a
    measurement do not count.

    Args:
        paths: The training images.
        preprocessing: Its window says which percentiles, its crop which part of each image counts.

    Returns:
        The two values, and how many images have more than 8 bits. None where the window does not depend on the images,
        or no image has more than 8 bits.

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
        return used_values(path, preprocessing)

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


def used_values(path: Path, preprocessing: Preprocessing) -> NDArray[np.generic]:
    """The grey values of the part of an image that is used, (N,)."""
    picture = read_picture(path)
    if preprocessing.crop == "auto":
        placement = preprocessing.place(shade(picture, own_window(picture)).convert("RGB"), picture.size)
    else:
        placement = preprocessing.place_size(picture.size)
    return finite_values(picture, placement.source)


def count_levels(paths: Sequence[Path], preprocessing: Preprocessing) -> Iterator[tuple[Path, int | UserError]]:
    """How many of 256 grey levels are left of each image once its window is applied, or why it cannot be."""

    def levels(path: Path) -> int | UserError:
        try:
            return len(np.unique(np.asarray(eight_bits(read_picture(path), path, preprocessing.window))))
        except UserError as error:
            return error

    yield from zip(paths, progress(_in_parallel(levels, paths), "Counting grey levels", len(paths)), strict=True)


def few_levels(levels: Mapping[Path, int]) -> tuple[Path, str] | None:
    """The image with the fewest grey levels, and what is to be said of them; None where all have LEVELS or more."""
    few = [path for path, count in levels.items() if count < LEVELS]
    if not few:
        return None
    worst = min(few, key=lambda path: levels[path])
    return worst, (
        f"{levels[worst]} grey levels are left by the window, the fewest; {len(few)} of {len(levels)} images with more"
        f" than 8 bits have fewer than {LEVELS}. A narrower --data.window leaves more."
    )


def describe_levels(levels: Mapping[Path, int]) -> str:
    """How many grey levels are left, in words."""
    worst = min(levels, key=lambda path: levels[path])
    median = statistics.median_low(levels.values())
    return (
        f"{median} of 256 are left by the window (median of {len(levels)} images), at worst {levels[worst]} ({worst})"
    )


def _in_parallel(function: Callable[[Path], Found], paths: Sequence[Path]) -> Iterator[Found]:
    """What a function finds in each file, in order, of which a few wait to be taken at any time."""
    step = AHEAD * (os.cpu_count() or 1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for start in range(0, len(paths), step):
                yield from pool.map(function, paths[start : start + step])
        finally:
            pool.shutdown(cancel_futures=True)
