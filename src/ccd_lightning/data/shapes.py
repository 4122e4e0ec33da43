"""Masks from polygons, boxes and run lengths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
CROSSINGS = 1 << 20  # number of row-edge crossings that are computed at once


def fill_polygon(mask: Bools, corners: Floats) -> None:
    """Sets the pixels of a mask whose centres are inside a polygon, by the even-odd rule.

    If no pixel centre is inside the polygon, the pixel at the polygon's own centre is set, if it is within the mask.

    Args:
        mask: Mask (H, W), changed in place.
        corners: Corners (N, 2) as x and y in pixels, measured from the upper left corner of the upper left pixel.
    """
    height, width = mask.shape
    low, high = corners.min(axis=0), corners.max(axis=0)
    top, bottom = int(np.clip(np.floor(low[1]), 0, height)), int(np.clip(np.ceil(high[1]), 0, height))
    left, right = int(np.clip(np.floor(low[0]), 0, width)), int(np.clip(np.ceil(high[0]), 0, width))
    inside = np.zeros((bottom - top, right - left), np.bool_)
    if inside.size:
        # Number of edges crossed on the way from the left to a pixel's centre; odd inside the polygon.
        crossings = np.zeros((bottom - top, right - left + 1), np.int32)
        for rows, columns in _crossings(corners - (left, top), bottom - top):
            np.add.at(crossings, (rows, np.clip(np.ceil(columns - 0.5), 0, right - left).astype(np.int64)), 1)
        inside = np.cumsum(crossings[:, :-1], axis=1) % 2 == 1
        mask[top:bottom, left:right] |= inside
    if not inside.any():
        _set_nearest(mask, (low + high) / 2)


def _crossings(corners: Floats, height: int) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Yields where a polygon's edges cross the middles of rows, as rows and x, for several edges at a time."""
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
    """Sets the pixels of a mask whose centres are within a box. A box inside the mask sets at least one pixel.

    Args:
        mask: Mask (H, W), changed in place.
        left: Left side of the box in pixels, measured like all sides from the upper left corner of the upper left
            pixel.
        top: Top of the box.
        right: Right side of the box.
        bottom: Bottom of the box.

    Raises:
        ValueError: If the box has a negative size.
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
    """Returns the first and the last + 1 of an axis' pixels whose centres are within [low, high)."""
    first, last = np.clip(np.ceil(np.array([low, high]) - 0.5), 0, length).astype(int).tolist()
    return first, last


def _set_nearest(mask: Bools, point: Floats) -> None:
    """Sets the pixel that contains a point, if the point is within the mask."""
    height, width = mask.shape
    if 0 <= point[0] < width and 0 <= point[1] < height:
        mask[int(point[1]), int(point[0])] = True


def from_run_lengths(counts: str | Sequence[int], stated: Sequence[int], size: tuple[int, ...]) -> Bools:
    """Decodes a mask from run lengths along its columns, alternating between background and foreground.

    Args:
        counts: Run lengths, or COCO's compressed form of them.
        stated: Height and width stated with the run lengths.
        size: Height and width of the image.

    Raises:
        ValueError: If the run lengths do not match this size.
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
    """Decodes run lengths from COCO's compressed form.

    Each number is written in groups of five bits, the lowest first, as characters from code 48 on. The sixth bit marks
    that more bits follow, and the fifth bit of the last group is the sign. From the fourth number on, numbers are
    differences to the number two before.
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
