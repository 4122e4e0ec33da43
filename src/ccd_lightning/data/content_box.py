"""Finding what a frame shows against a dark margin: an endoscope's image, the disc of a fundus photograph."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccd_lightning.data.placement import Box

SIDE = 256  # px of the longer side at which the content is told from text
DARK = 48  # grey of a corner, above which there is no dark margin
ABOVE = 12  # greys by which content is brighter than the margin: JPEG's noise there is less
STROKE = 0.012  # of the longer side, what is thinner is text or a line
LEAST = 0.05  # share of the frame that content has at least
TRACE = 0.01  # share of a line's pixels that are brighter than the margin where the line is content

Greys = npt.NDArray[np.uint8]


def content_box(image: Image.Image) -> Box:
    """The box around the content of a frame with a dark margin.

    Content is the largest connected bright region once lines and letters are removed, with what is dark inside of it.
    Without a dark margin, which at least two corners show, it is all of the frame.

    Args:
        image: 8-bit, of any mode.

    Returns:
        Left, top, right and bottom in whole pixels.
    """
    width, height = image.size
    whole = (0, 0, width, height)
    grey = np.asarray(image.convert("RGB")).max(axis=2)
    reach = max(1, min(width, height) // 50)
    corners = [float(np.median(part)) for part in _corners(grey, reach)]
    if sorted(corners)[1] > DARK:  # content may reach into two of them
        return whole
    level = sorted(corners)[0] + ABOVE
    scale = max(1.0, max(width, height) / SIDE)
    small = image.convert("RGB").resize((max(1, round(width / scale)), max(1, round(height / scale))))
    found = _largest(np.asarray(small).max(axis=2) > level, math.ceil(STROKE * max(small.size)))
    if found is None:
        return whole
    rows, columns = found
    across, down = width / small.width, height / small.height
    top, bottom = _edges(grey[:, _pixels(columns, across, width)] > level, rows, down)
    left, right = _edges((grey[_pixels(rows, down, height)] > level).T, columns, across)
    return left, top, right, bottom


def _corners(grey: Greys, reach: int) -> list[Greys]:
    sides = (slice(None, reach), slice(-reach, None))
    return [grey[rows, columns] for rows in sides for columns in sides]


def _largest(bright: npt.NDArray[np.bool_], stroke: int) -> tuple[slice, slice] | None:
    """The box of the largest region that is thicker than a stroke, in rows and columns; None if there is none."""
    from scipy import ndimage  # here: it takes a while to import

    across = np.arange(-stroke, stroke + 1)
    disc = across[:, None] ** 2 + across**2 <= stroke**2
    padded = np.pad(bright, 2 * stroke, mode="edge")  # so that content at the frame's edge is not eroded
    inner = slice(2 * stroke, -2 * stroke)
    opened = ndimage.binary_opening(padded, disc)[inner, inner]
    labels, count = ndimage.label(opened, np.ones((3, 3)))
    if not count:
        return None
    boxes = ndimage.find_objects(labels)
    largest = int(np.bincount(labels.ravel())[1:].argmax())
    rows, columns = boxes[largest]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return (rows, columns) if area >= LEAST * bright.size else None


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
