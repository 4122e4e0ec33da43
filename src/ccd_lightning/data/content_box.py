"""Finding what a frame shows against a dark margin: an endoscope's image, the disc of a fundus photograph."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccd_lightning.data.placement import Box

SIDE = 256  # px of the longer side at which the content is told from text
DARK = 24  # grey of a corner, above which there is no dark margin
BLACK = 8  # grey of a margin, above which it may as well be a dim part of the content
ABOVE = 12  # greys by which content is brighter than the margin: JPEG's noise there is less
SOFT = 0.02  # of the longer side, by which the edge of content in a margin may move with the grey that marks it
STROKE = 0.012  # of the longer side, what is thinner is text or a line
LEAST = 0.05  # share of the frame that content has at least, in a black margin
LARGE = 0.25  # and in one that is not black, where a bright lesion in a dim frame looks as content does
PART = 0.1  # of the area of its largest part, which other parts have at least: a second leg, but no scope guide
TRACE = 0.01  # share of a line's pixels that are brighter than the margin where the line is content

Greys = npt.NDArray[np.uint8]
Slices = tuple[slice, slice]


def content_box(image: Image.Image) -> Box:
    """The box around the content of a frame with a dark margin.

    Content is the largest connected bright region once lines and letters are removed, and others that are not much
    smaller, with what is dark inside of them. Without a margin it is all of the frame. A margin is dark and even in
    two corners at least; if it is not black, content has to be large and to begin at a sharp edge.

    Args:
        image: 8-bit, of any mode.

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
    found = _parts(shrunk > level, stroke, LEAST if margin <= BLACK else LARGE)
    if found is None:
        return whole
    if margin > BLACK and not _agree(found, _parts(shrunk > level + ABOVE, stroke, LEAST), shrunk.shape):
        return whole
    rows, columns = found
    across, down = width / small.width, height / small.height
    top, bottom = _edges(grey[:, _pixels(columns, across, width)] > level, rows, down)
    left, right = _edges((grey[_pixels(rows, down, height)] > level).T, columns, across)
    return left, top, right, bottom


def _margin(grey: Greys, reach: int) -> float | None:
    """The grey of the dark margin, which is so wide at least; None where there is none."""
    sides = (slice(None, reach), slice(-reach, None))
    corners = [grey[rows, columns] for rows in sides for columns in sides]
    levels = [float(np.median(part)) for part in corners]
    even = [float(np.ptp(np.percentile(part, (5, 95)))) < ABOVE for part in corners]
    most = min(DARK, min(levels) + ABOVE)
    margins = [level for level, flat in zip(levels, even, strict=True) if flat and level <= most]
    return min(margins) if len(margins) >= 2 else None  # content may reach into two of them


def _agree(found: Slices, other: Slices | None, shape: tuple[int, ...]) -> bool:
    """Whether two boxes are nearly the same, in an image of a shape."""
    if other is None:
        return False
    pairs = zip(found, other, strict=True)
    moved = max(max(abs(one.start - two.start), abs(one.stop - two.stop)) for one, two in pairs)
    return bool(moved <= max(1, SOFT * max(shape)))


def _parts(bright: npt.NDArray[np.bool_], stroke: int, least: float) -> Slices | None:
    """The box of the large regions that are thicker than a stroke, in rows and columns; None if it is too small."""
    from scipy import ndimage  # here: it takes a while to import

    across = np.arange(-stroke, stroke + 1)
    disc = across[:, None] ** 2 + across**2 <= stroke**2
    padded = np.pad(bright, 2 * stroke, mode="edge")  # so that content at the frame's edge is not eroded
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
    """The first line of the content and the one after its last, to the pixel.

    Args:
        bright: (n, m), of which the lines are the rows.
        span: Of the content, in lines of the smaller picture.
        scale: Lines for each of these.
    """
    lines = bright.mean(axis=1) > TRACE
    slack = math.ceil(2 * scale) if scale > 1 else 1
    start, stop = round(span.start * scale), round(span.stop * scale)
    first, last = max(0, start - slack), min(len(lines), stop + slack)
    inside = np.flatnonzero(lines[first:last])
    return (first + int(inside[0]), first + int(inside[-1]) + 1) if inside.size else (first, last)
