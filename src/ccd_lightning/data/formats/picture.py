"""Types that the readers of all formats return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Range = tuple[float, float]
Size = tuple[int, int]  # width and height in pixels
Least = Callable[[Size], Size | None]  # maps an image's size to one that suffices, or to None for full size


@dataclass(frozen=True, eq=False)
class Window:
    """A display window stored in a file: a mapping from grey values to brightness.

    Attributes:
        low: Value at and below which pixels are black.
        high: Value at and above which pixels are white. Equal to `low` for a step.
        name: Name in the file, such as "BRAIN". May be empty.
        sigmoid: Whether brightness follows a sigmoid with the same centre and width instead of a line.
        table: Brightness, 0 to 1, of the integers from low to high, if the file contains a table instead.
    """

    low: float
    high: float
    name: str = ""
    sigmoid: bool = False
    table: NDArray[np.float64] | None = None

    def shares(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Returns the brightness, 0 to 1, of grey values of any shape. That of NaN is 0."""
        values = values.astype(np.float64)
        values[np.isnan(values)] = -np.inf
        if self.table is not None:
            indices = np.rint(values.clip(self.low, self.high) - self.low).astype(np.intp)
            return np.asarray(self.table[indices])
        width = self.high - self.low
        if width == 0:
            return (values > self.low).astype(np.float64)
        if self.sigmoid:  # PS3.3 C.11.2.1.3.1
            return np.asarray(1 / (1 + np.exp((-4 * (values - (self.low + self.high) / 2) / width).clip(-700, 700))))
        return np.asarray(((values - self.low) / width).clip(0, 1))


class Header(NamedTuple):
    """Properties of a file, read without decoding pixels.

    Attributes:
        size: Width and height of an image in pixels, upright.
        pages: Number of images in the file.
        mode: Pillow mode: "L" (grey), "RGB", "I;16" (grey, 16 bits), "F" ...; or a name such as "RGB;16" for colour
            with more than 8 bits, for which Pillow has no name.
        group: Pseudonym of the patient or study of all its images, None if unknown.
        orientation: EXIF orientation by which the image was rotated; 1 for none.
    """

    size: Size
    pages: int
    mode: str
    group: str | None = None
    orientation: int = 1


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image, before grey values are converted to 8 bits.

    Attributes:
        image: Upright image: 8-bit in any Pillow mode, or grey with more bits ("I;16", "I" or "F") in the file's own
            units (Hounsfield units for CT). May be smaller than the original if the caller allowed it.
        size: Width and height of the original in pixels, upright.
        full: Lowest and highest value that the file's bit depth can hold, None if unknown.
        windows: Windows stored in the file.
        inverted: Whether low values are bright.
        missing: Mask (height, width) of pixels without a measurement, such as DICOM padding, None if there are none.
            They become black and are excluded from statistics of grey values.
    """

    image: Image.Image
    size: Size
    full: Range | None = None
    windows: tuple[Window, ...] = ()
    inverted: bool = False
    missing: NDArray[np.bool_] | None = None
