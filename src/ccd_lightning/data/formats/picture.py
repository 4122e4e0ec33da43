"""What every format is read as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Range = tuple[float, float]
Size = tuple[int, int]  # width and height in pixels
Least = Callable[[Size], Size | None]  # of an image of this size, that suffices; None where all of it is wanted


@dataclass(frozen=True, eq=False)
class Window:
    """A range of grey values that a file asks to be shown by: how bright each of them is.

    Attributes:
        low: The value at and below which all is black.
        high: The value at and above which all is white; the same as low for a step.
        name: What the file calls it, such as "BRAIN"; may be empty.
        sigmoid: Whether brightness follows a sigmoid of the same centre and width, rather than a line.
        table: Brightness of the whole numbers from low to high, 0 to 1, where the file gives a table instead.
    """

    low: float
    high: float
    name: str = ""
    sigmoid: bool = False
    table: NDArray[np.float64] | None = None

    def shares(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Brightness of grey values of any shape, 0 to 1; that of NaN is 0."""
        values = values.astype(np.float64)
        values[np.isnan(values)] = -np.inf
        if self.table is not None:
            places = np.rint(values.clip(self.low, self.high) - self.low).astype(np.intp)
            return np.asarray(self.table[places])
        width = self.high - self.low
        if width == 0:
            return (values > self.low).astype(np.float64)
        if self.sigmoid:  # PS3.3 C.11.2.1.3.1
            return np.asarray(1 / (1 + np.exp((-4 * (values - (self.low + self.high) / 2) / width).clip(-700, 700))))
        return np.asarray(((values - self.low) / width).clip(0, 1))


class Header(NamedTuple):
    """What a file says of itself before its pixels are decoded.

    Attributes:
        size: Width and height of an image in pixels, upright.
        pages: How many images the file holds.
        mode: Pillow's name of channels and depth: "L" (grey), "RGB", "I;16" (grey, 16 bits), "F" ...; or one such as
            "RGB;16" of colour with more than 8 bits, which Pillow has no name for.
        group: Whom or what all of its images are of, without a name; None where it does not say.
        orientation: EXIF's, by which the image was turned; 1 for none.
    """

    size: Size
    pages: int
    mode: str
    group: str | None = None
    orientation: int = 1


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as its file holds it, before grey values are brought to 8 bits.

    Attributes:
        image: Upright. Of 8 bits in any of Pillow's modes; or grey of more, "I;16", "I" or "F", in the file's own units
            (Hounsfield units of a CT). May be smaller than the original, where that was allowed.
        size: Width and height of the original in pixels, upright.
        full: The lowest and the highest value that the depth of the file can hold; None where that is not known.
        windows: The ranges that the file asks to be shown by.
        inverted: Whether low values are bright.
        missing: Which pixels (height, width) hold no measurement, as DICOM's padding; None where all do. They are
            black, and left out where grey values are counted.
    """

    image: Image.Image
    size: Size
    full: Range | None = None
    windows: tuple[Window, ...] = ()
    inverted: bool = False
    missing: NDArray[np.bool_] | None = None
