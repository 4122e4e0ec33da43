"""Detection of the content of a frame with a dark margin: an endoscope's image, the disc of a fundus photograph."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccd_lightning.data.placement import Box

SIDE = 256  # px: longer side of the reduced image in which content is separated from text
DARK = 24  # grey value of a corner above which there is no dark margin
BLACK = 8  # grey value of a margin above which it could also be a dim part of the content
ABOVE = 12  # grey levels by which content must be brighter than the margin; JPEG noise stays below
SOFT = 0.02  # fraction of the longer side by which the box may move if the grey threshold is raised
STROKE = 0.012  # fraction of the longer side; anything thinner is text or a line
MIN_AREA = 0.05  # minimum fraction of the frame that content covers if the margin is black
LARGE = 0.25  # the same if the margin is not black, where a bright lesion in a dim frame could be mistaken for content
PART = 0.1  # minimum area of other parts relative to the largest: keeps a second leg, drops a scope guide
TRACE = 0.01  # fraction of a line's pixels that must be brighter than the margin for the line to be content

Greys = npt.NDArray[np.uint8]
Slices = tuple[slice, slice]


def content_box(image: Image.Image) -> Box:
    """Returns the bounding box of the content of a frame with a dark margin.

    Content is the largest connected bright region after lines and letters are removed, plus regions that are not much
    smaller, including the dark areas inside them. Without a margin, the box is the whole frame. A margin is dark and
    uniform in at least two corners. If it is not black, content must be large and have a sharp edge.

    Args:
        image: 8-bit image of any mode.

    Returns:
        Left, top, right and bottom in whole pixels.
    """
    width, height = image.size
    whole = (0, 0, width, height)
    grey = np.asarray(image.convert("RGB")).max(axis=2)
    margin = _margin(grey, max(1, min(width, height) // 50))
    if margin is None:
        return whole
    level = margin + ABOVE
    scale = max(1.0, max(width, height) / SIDE)
    small = image.convert("RGB").resize((max(1, round(width / scale)), max(1, round(height / scale))))
    shrunk, stroke = np.asarray(small).max(axis=2), math.ceil(STROKE * max(small.size))
    found = _parts(shrunk > level, stroke, MIN_AREA if margin <= BLACK else LARGE)
    if found is None:
        return whole
    if margin > BLACK and not _agree(found, _parts(shrunk > level + ABOVE, stroke, MIN_AREA), shrunk.shape):
        return whole
    rows, columns = found
    across, down = width / small.width, height / small.height
    top, bottom = _edges(grey[:, _pixels(columns, across, width)] > level, rows, down)
    left, right = _edges((grey[_pixels(rows, down, height)] > level).T, columns, across)
    return left, top, right, bottom


def _margin(grey: Greys, reach: int) -> float | None:
    """Returns the grey value of a dark margin that is at least `reach` pixels wide, or None if there is no margin."""
    sides = (slice(None, reach), slice(-reach, None))
    corners = [grey[rows, columns] for rows in sides for columns in sides]
    levels = [float(np.median(part)) for part in corners]
    even = [float(np.ptp(np.percentile(part, (5, 95)))) < ABOVE for part in corners]
    most = min(DARK, min(levels) + ABOVE)
    margins = [level for level, flat in zip(levels, even, strict=True) if flat and level <= most]
    return min(margins) if len(margins) >= 2 else None  # content may extend into the other two corners


def _agree(found: Slices, other: Slices | None, shape: tuple[int, ...]) -> bool:
    """Returns whether two boxes in an image of the given shape are nearly equal."""
    if other is None:
        return False
    pairs = zip(found, other, strict=True)
    moved = max(max(abs(one.start - two.start), abs(one.stop - two.stop)) for one, two in pairs)
    return bool(moved <= max(1, SOFT * max(shape)))


def _parts(bright: npt.NDArray[np.bool_], stroke: int, least: float) -> Slices | None:
    """Returns the box (rows, columns) around large regions thicker than a stroke, or None if it is too small."""
    from scipy import ndimage  # imported here because it is slow to import

    across = np.arange(-stroke, stroke + 1)
    disc = across[:, None] ** 2 + across**2 <= stroke**2
    padded = np.pad(bright, 2 * stroke, mode="edge")  # so that content at the edge of the frame is not eroded
    inner = slice(2 * stroke, -2 * stroke)
    opened = ndimage.binary_opening(padded, disc)[inner, inner]
    labels, count = ndimage.label(opened, np.ones((3, 3)))
    if not count:
        return None
    areas = np.bincount(labels.ravel())[1:]
    boxes = np.array([
        [(side.start, side.stop) for side in box]
        for box, area in zip(ndimage.find_objects(labels), areas, strict=True)
        if area >= PART * areas.max()
    ])  # fmt: skip
    starts, stops = boxes[..., 0].min(axis=0).tolist(), boxes[..., 1].max(axis=0).tolist()
    rows, columns = map(slice, starts, stops)
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return (rows, columns) if area >= least * bright.size else None


def _pixels(span: slice, scale: float, length: int) -> slice:
    return slice(int(span.start * scale), min(length, math.ceil(span.stop * scale)))


def _edges(bright: npt.NDArray[np.bool_], span: slice, scale: float) -> tuple[int, int]:
    """Returns the first line of the content and the line after its last, in full resolution.

    Args:
        bright: Boolean array of shape (n, m), in which each row is a line.
        span: Lines that the content covers in the reduced image.
        scale: Number of lines per line of the reduced image.
    """
    lines = bright.mean(axis=1) > TRACE
    slack = math.ceil(2 * scale) if scale > 1 else 1
    start, stop = round(span.start * scale), round(span.stop * scale)
    first, last = max(0, start - slack), min(len(lines), stop + slack)
    inside = np.flatnonzero(lines[first:last])
    return (first + int(inside[0]), first + int(inside[-1]) + 1) if inside.size else (first, last)
