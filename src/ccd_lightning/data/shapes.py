"""Masks from polygons, boxes and run lengths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
CROSSINGS = 1 << 20  # of rows and edges, computed at once


def fill_polygon(mask: Bools, corners: Floats) -> None:
    """Sets the pixels of a mask whose centres are inside of a polygon, by the even-odd rule.

    A polygon within which no centre lies keeps the pixel at its own centre, if that is within the mask.

    Args:
        mask: (H, W), which is changed.
        corners: (N, 2) of x and y in pixels, from the upper left corner of the upper left pixel.
    """
    height, width = mask.shape
    low, high = corners.min(axis=0), corners.max(axis=0)
    top, bottom = int(np.clip(np.floor(low[1]), 0, height)), int(np.clip(np.ceil(high[1]), 0, height))
    left, right = int(np.clip(np.floor(low[0]), 0, width)), int(np.clip(np.ceil(high[0]), 0, width))
    inside = np.zeros((bottom - top, right - left), np.bool_)
    if inside.size:
        # How often the edges are crossed on the way from the left to a pixel's centre: odd inside.
        crossings = np.zeros((bottom - top, right - left + 1), np.int32)
        for rows, columns in _crossings(corners - (left, top), bottom - top):
            np.add.at(crossings, (rows, np.clip(np.ceil(columns - 0.5), 0, right - left).astype(np.int64)), 1)
        inside = np.cumsum(crossings[:, :-1], axis=1) % 2 == 1
        mask[top:bottom, left:right] |= inside
    if not inside.any():
        _set_nearest(mask, (low + high) / 2)


def _crossings(corners: Floats, height: int) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Where a polygon's edges cross the middles of rows: the rows, and x, of some edges at a time."""
    starts, ends = corners, np.roll(corners, -1, axis=0)
    upper, lower = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    # An edge crosses the row r if upper <= r + 0.5 < lower.
    first = np.clip(np.ceil(upper - 0.5), 0, height).astype(np.int64)
    counts = np.clip(np.ceil(lower - 0.5), 0, height).astype(np.int64) - first
    step = max(1, CROSSINGS // height)
    for start in range(0, len(corners), step):
        part = counts[start : start + step]
        edges = start + np.repeat(np.arange(len(part)), part)
        rows = first[edges] + np.arange(len(edges)) - np.repeat(np.cumsum(part) - part, part)
        (x, y), (across, down) = starts[edges].T, (ends - starts)[edges].T
        yield rows, x + (rows + 0.5 - y) * across / down


def fill_box(mask: Bools, left: float, top: float, right: float, bottom: float) -> None:
    """Sets the pixels of a mask (H, W) whose centres are within a box, and at least one of a box within the mask.

    Args:
        mask: (H, W), which is changed.
        left: In pixels, as all of them, from the upper left corner of the upper left pixel.
        top: Of the box.
        right: Of the box.
        bottom: Of the box.

    Raises:
        ValueError: If the box ends before it begins.
    """
    if right < left or bottom < top:
        raise ValueError("a box of a negative size")
    height, width = mask.shape
    (first, last), (start, stop) = _centres(top, bottom, height), _centres(left, right, width)
    if first < last and start < stop:
        mask[first:last, start:stop] = True
    else:
        _set_nearest(mask, np.array([left + right, top + bottom]) / 2)


def _centres(low: float, high: float, length: int) -> tuple[int, int]:
    """The pixels of an axis whose centres are within [low, high)."""
    first, last = np.clip(np.ceil(np.array([low, high]) - 0.5), 0, length).astype(int).tolist()
    return first, last


def _set_nearest(mask: Bools, point: Floats) -> None:
    """Sets the pixel in which a point lies, if there is one."""
    height, width = mask.shape
    if 0 <= point[0] < width and 0 <= point[1] < height:
        mask[int(point[1]), int(point[0])] = True


def from_run_lengths(counts: str | Sequence[int], stated: Sequence[int], size: tuple[int, ...]) -> Bools:
    """A mask from run lengths down the columns, of background and foreground in turn.

    Args:
        counts: The lengths, or COCO's compressed form of them.
        stated: Height and width that go with them.
        size: Height and width of the image.

    Raises:
        ValueError: If they are not of this size.
    """
    height, width = stated
    if (height, width) != size:
        raise ValueError(f"run lengths of {width} x {height} pixels, but the image has {size[1]} x {size[0]}")
    if isinstance(counts, str):
        counts = _unpack(counts)
    lengths = np.array([int(length) for length in counts], np.int64)
    if (lengths < 0).any() or (lengths > math.prod(size)).any() or lengths.sum() != math.prod(size):
        raise ValueError("run lengths that do not add up to the number of pixels")
    foreground = np.arange(len(lengths)) % 2 == 1
    return np.repeat(foreground, lengths).reshape(size, order="F")


def _unpack(packed: str) -> list[int]:
    """Run lengths from COCO's compressed form.

    Each number is written five bits at a time, the lowest first, as characters from 48 on; the sixth bit says that more
    bits follow, and the fifth of the last ones is the sign. From the fourth number on it is a difference to the one two
    before.
    """
    counts, bits, value = list[int](), 0, 0
    for character in packed:
        code = ord(character) - 48
        if not 0 <= code < 64 or bits > 40:
            raise ValueError("run lengths that cannot be unpacked")
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:
            value -= (1 << bits) * (code >> 4 & 1)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            bits = value = 0
    return counts
