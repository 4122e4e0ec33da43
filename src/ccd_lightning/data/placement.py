"""Placement of an image: its area in the working image, and the part of the original that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Box = tuple[int, int, int, int]  # left, top, right and bottom, in whole pixels


class Placement(NamedTuple):
    """Which part of the original is shown in which area of the working image.

    Attributes:
        original: Width and height of the original in pixels, upright.
        source: The part of the original that is used.
        target: The area of the working image that shows it. The rest of the working image is an empty margin.
    """

    original: tuple[int, int]
    source: Box
    target: Box

    @classmethod
    def whole(cls, original: tuple[int, int], working: tuple[int, int] | None = None) -> Placement:
        """Places the whole image in the whole working image. Sizes are width and height, and by default the same."""
        return cls(original, (0, 0, *original), (0, 0, *(working or original)))

    @property
    def content(self) -> tuple[int, int, int, int]:
        """Top, left, bottom and right of the target, in pixels of the working image."""
        left, top, right, bottom = self.target
        return top, left, bottom, right

    def source_in(self, width: int, height: int) -> Box:
        """Returns the source box in another picture of the same image, such as a mask, of this size in pixels."""
        if (width, height) == self.original:
            return self.source
        across, down = width / self.original[0], height / self.original[1]
        left, top, right, bottom = self.source
        return round(left * across), round(top * down), round(right * across), round(bottom * down)

    def restore(self, working: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Maps an array (H, W) of the working image back to the original.

        Returns:
            Array (height, width) of the original's size, by linear interpolation; 0 outside of the part that is used.
        """
        left, top, right, bottom = self.target
        inner, (x, y, x_end, y_end) = working[top:bottom, left:right], self.source
        resized = Image.fromarray(inner).resize((x_end - x, y_end - y), Image.Resampling.BILINEAR)
        found = np.zeros(self.original[::-1], np.float32)
        found[y:y_end, x:x_end] = np.asarray(resized)
        return found

    def numbers(self) -> list[int]:
        """Returns the placement as ten integers."""
        return [*self.original, *self.source, *self.target]

    @classmethod
    def from_numbers(cls, numbers: Sequence[int]) -> Placement:
        """Restores a placement from what `numbers` returned."""
        width, height, *boxes = (int(number) for number in numbers)
        return cls((width, height), tuple(boxes[:4]), tuple(boxes[4:]))  # type: ignore[arg-type]
