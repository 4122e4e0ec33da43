"""Connected regions of masks (lesions), and resizing without losing any of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Box = tuple[slice, slice]


def regions(mask: Bools) -> Iterator[tuple[Box, Bools]]:
    """Yields the 8-connected regions of a mask (H, W): the bounding box of each, and its pixels within the box."""
    from scipy import ndimage  # imported here because it is slow to import

    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        yield box, labels[box] == index


def resize_regions(mask: Bools, shape: tuple[int, int]) -> Bools:
    """Resizes a mask so that areas are preserved and no region disappears.

    A pixel is abnormal if more than half of it is covered. If exactly half is covered, the original pixel at its centre
    decides. In addition, each region keeps the pixel that it covers most, however little that is.

    Args:
        mask: Mask (h, w), h, w > 0.
        shape: Height and width of the result in pixels.
    """
    if mask.shape == shape:
        return mask
    (height, width), (high, wide) = mask.shape, shape
    rows, columns = _overlaps(height, high), _overlaps(width, wide)
    share, kept = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    for (down, across), region in regions(mask):
        top, bottom = down.start * high // height, -(-down.stop * high // height)
        left, right = across.start * wide // width, -(-across.stop * wide // width)
        covered = rows[top:bottom, down] @ region.astype(np.float32) @ columns[left:right, across].T
        share[top:bottom, left:right] += covered
        row, column = divmod(int(covered.argmax()), right - left)
        kept[top + row, left + column] = True
    centre = mask[_centres(height, high)[:, None], _centres(width, wide)]
    return np.where(np.isclose(share, 0.5, atol=1e-4), centre, share > 0.5) | kept


def region_sizes(mask: Bools, shape: tuple[int, int]) -> list[float]:
    """Returns the length of the longer side of each region of a mask (h, w) at another shape (H, W), in pixels."""
    return [
        max((box.stop - box.start) * size / side for box, size, side in zip(slices, shape, mask.shape, strict=True))
        for slices, _ in regions(mask)
    ]


def count_outside(mask: Bools, box: tuple[int, int, int, int]) -> tuple[int, int]:
    """Returns how many regions of a mask (h, w) lie outside a box (left, top, right, bottom), and the total number."""
    left, top, right, bottom = box
    inside = np.zeros(mask.shape, np.bool_)
    inside[top:bottom, left:right] = True
    outside = [not (region & inside[slices]).any() for slices, region in regions(mask)]
    return sum(outside), len(outside)


@lru_cache(maxsize=8)
def _overlaps(length: int, size: int) -> Floats:
    """Returns the fraction of each of `size` cells of an axis that each of `length` pixels covers, (size, length)."""
    edges = np.arange(size + 1) * (length / size)
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    share: Floats = (overlap.clip(min=0) * (size / length)).astype(np.float32)
    return share


def _centres(length: int, size: int) -> npt.NDArray[np.int64]:
    """Returns the pixel that contains the centre of each cell, (size,)."""
    return (2 * np.arange(size) + 1) * length // (2 * size)
