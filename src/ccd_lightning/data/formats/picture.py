"""What every format is read as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

Range = tuple[float, float]
Size = tuple[int, int]  # width and height in pixels
Least = Callable[[Size], Size | None]  # of an image of this size, that suffices; None where all of it is wanted


class Window(NamedTuple):
    """A range of grey values that a file asks to be shown by.

    Attributes:
        low: Value that becomes black.
        high: Value that becomes white.
        name: What the file calls it, such as "BRAIN"; may be empty.
    """

    low: float
    high: float
    name: str = ""


class Header(NamedTuple):
    """What a file says of itself before its pixels are decoded.

    Attributes:
        size: Width and height of an image in pixels, upright.
        pages: How many images the file holds.
        mode: Pillow's name of channels and depth: "L" (grey), "RGB", "I;16" (grey, 16 bits), "F" ...
        group: Whom or what all of its images are of, without a name; None where it does not say.
    """

    size: Size
    pages: int
    mode: str
    group: str | None = None


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
    """

    image: Image.Image
    size: Size
    full: Range | None = None
    windows: tuple[Window, ...] = ()
    inverted: bool = False
