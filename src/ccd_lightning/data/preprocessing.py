"""How a file becomes a square image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccd_lightning.data.depth import Range
from ccd_lightning.errors import UserError


@dataclass(frozen=True)
class Preprocessing:
    """How a file becomes a square image.

    Attributes:
        size: Side of the square, in pixels.
        crop: Left, top, right and bottom as fractions of width and height; None keeps the whole image.
        range: The values of images of more than 8 bits that become 0 and 255; None takes all 16 bits.
    """

    size: int
    crop: tuple[float, float, float, float] | None = None
    range: Range | None = None

    def __post_init__(self) -> None:
        """Checks all.

        Raises:
            UserError: If there is no pixel, the crop is empty or not inside of the image, or the range is empty.
        """
        if self.size < 1:
            raise UserError(f"data.size is {self.size}, but must be 1 or more.")
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise UserError(
                    f"data.crop is {list(self.crop)}, but must be left < right and top < bottom, all within [0, 1]."
                )
        if self.range is not None and not -math.inf < self.range[0] < self.range[1] < math.inf:
            raise UserError(f"data.range is {list(self.range)}, but must be two finite numbers, low < high.")

    @property
    def key(self) -> str:
        """Size and crop as text for digests of caches and test sets, whose first word is that of the first version."""
        return f"Geometry(size={self.size}, crop={self.crop})"

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The part to use of an image: left, top, right and bottom in whole pixels."""
        left, top, right, bottom = self.crop or (0, 0, 1, 1)
        return round(left * width), round(top * height), round(right * width), round(bottom * height)

    def apply(self, image: Image.Image) -> Image.Image:
        """Crops, to whole pixels, and resizes."""
        if self.crop is not None:
            image = image.crop(self.box(*image.size))
        return image.resize((self.size, self.size), Image.Resampling.BILINEAR)

    def cropped(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """The part of a mask (H, W) to use."""
        left, top, right, bottom = self.box(mask.shape[1], mask.shape[0])
        return mask[top:bottom, left:right]
