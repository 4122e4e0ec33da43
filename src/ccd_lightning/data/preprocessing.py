"""Conversion of a file to an image at working size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccd_lightning.data.content_box import content_box
from ccd_lightning.data.depth import WindowOption, parse_window
from ccd_lightning.data.placement import Box, Placement
from ccd_lightning.data.regions import region_sizes, resize_regions
from ccd_lightning.data.tiles import Tiles, tiles_along
from ccd_lightning.errors import UserError
from ccd_lightning.ranges import at_least, refuse

Fit = Literal["squash", "letterbox", "crop"]
Crop = tuple[float, float, float, float]
OPTIONS = ("size", "crop", "window", "fit", "tiles")


@dataclass(frozen=True)
class Preprocessing:
    """How an image is brought to working size.

    Attributes:
        size: Height and width of the working image in pixels, or the side of a square.
        crop: Part of the image to use: left, top, right and bottom as fractions of width and height; "auto" for the
            content of a frame with a dark margin (`content_box`); None for the whole image.
        window: How images of more than 8 bits are converted to 8 (`depth.parse_window`): the two values that become 0
            and 255, or how to find them. None and percentiles mean the whole bit depth until they are measured.
        fit: How another aspect ratio is fitted to the working size: "squash" stretches it, "letterbox" adds a margin,
            "crop" cuts off both ends of the longer side.
        tiles: How detectors divide the working image. A number is the number of tiles along the shorter side. None for
            no tiles.
    """

    size: int | tuple[int, int]
    crop: Crop | Literal["auto"] | None = None
    window: WindowOption = None
    fit: Fit = "squash"
    tiles: int | Tiles | None = None

    def __post_init__(self) -> None:
        """Validates all options, and replaces a pair of equal sides by the side of a square.

        Raises:
            UserError: If the size is below one pixel, the crop is empty or not inside the image, the window is invalid,
                or tiles do not fit into the working image.
        """
        height, width = self.shape
        if min(height, width) < 1:
            refuse("data.size", self.size, "1 or more")
        object.__setattr__(self, "size", height if height == width else (height, width))
        if self.crop is not None and self.crop != "auto":
            left, top, right, bottom = self.crop
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise UserError(
                    f"data.crop is {list(self.crop)}, but must be left < right and top < bottom, all within [0, 1]."
                )
        object.__setattr__(self, "window", parse_window(self.window))
        if self.fit not in get_args(Fit):
            raise UserError(f"data.fit is {self.fit!r}, but must be one of {', '.join(get_args(Fit))}.")
        self._check_tiles()

    def _check_tiles(self) -> None:
        if isinstance(self.tiles, int):
            at_least("data.tiles", self.tiles, 1)
        if (tiles := self.tiling) and tiles.side > min(self.shape):
            raise UserError(
                f"data.tiles: tiles of {tiles.side} px do not fit into images of {self.size_in_words} px (data.size)."
            )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Preprocessing:
        """Creates a preprocessing from the data module's options in a config.

        Raises:
            KeyError: If there is no size.
            TypeError: If an option has the wrong type.
            ValueError: If a value is not a number.
        """
        size, crop, window, tiles = (settings.get(name) for name in ("size", "crop", "window", "tiles"))
        return cls(
            int(settings["size"]) if isinstance(size, int | str) else _numbers(int, size, 2),
            crop if crop in (None, "auto") else _numbers(float, crop, 4),
            window if window is None or isinstance(window, str) else _numbers(float, window, 2),
            settings.get("fit", "squash"),
            Tiles(**tiles) if isinstance(tiles, Mapping) else None if tiles is None else int(tiles),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the working image, in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def size_in_words(self) -> str:
        """Working size as written in messages: "256", or "256 x 320" (height first)."""
        return str(self.size) if isinstance(self.size, int) else f"{self.size[0]} x {self.size[1]}"

    @property
    def tiling(self) -> Tiles | None:
        """The tiles. If only their number was given, with the side that follows from it."""
        return tiles_along(min(self.shape), self.tiles) if isinstance(self.tiles, int) else self.tiles

    def differences(self, other: Preprocessing) -> dict[str, tuple[Any, Any]]:
        """Returns the options that differ from another preprocessing, with this value and the other's."""
        pairs = {f"data.{name}": (getattr(self, name), getattr(other, name)) for name in OPTIONS}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    @property
    def key(self) -> str:
        """Size and crop as text for digests of caches and test sets. It keeps the class name of the first version."""
        fit = "" if self.fit == "squash" else f", fit={self.fit}"
        return f"Geometry(size={self.size}, crop={self.crop}{fit})"

    def box(self, width: int, height: int) -> Box:
        """Returns the part of an image defined by the fractions of `crop`; the whole image for "auto"."""
        left, top, right, bottom = (0, 0, 1, 1) if self.crop is None or self.crop == "auto" else self.crop
        return round(left * width), round(top * height), round(right * width), round(bottom * height)

    def place(self, image: Image.Image, original: tuple[int, int] | None = None) -> Placement:
        """Determines which part of an image is used, and its placement at working size.

        Args:
            image: The 8-bit image. Its pixels matter only if `crop` is "auto".
            original: Width and height of the original in pixels, if the image is a smaller version of it.
        """
        width, height = original or image.size
        source = content_box(image) if self.crop == "auto" else self.box(width, height)
        return self._fitted((width, height), source)

    def place_size(self, original: tuple[int, int]) -> Placement:
        """Like `place`, for an image of which only width and height are known. For "auto", the whole image is used."""
        return self._fitted(original, self.box(*original))

    def _fitted(self, original: tuple[int, int], source: Box) -> Placement:
        height, width = self.shape
        left, top, right, bottom = source
        across, down = max(1, right - left), max(1, bottom - top)
        if self.fit == "crop":
            kept_across = min(across, max(1, round(down * width / height)))
            kept_down = min(down, max(1, round(across * height / width)))
            left, top = left + (across - kept_across) // 2, top + (down - kept_down) // 2
            source = (left, top, left + kept_across, top + kept_down)
        target = (0, 0, width, height)
        if self.fit == "letterbox":
            scale = min(width / across, height / down)
            wide, high = (max(1, min(most, round(scale * side))) for most, side in ((width, across), (height, down)))
            left, top = (width - wide) // 2, (height - high) // 2
            target = (left, top, left + wide, top + high)
        return Placement(original, source, target)

    def least(self, original: tuple[int, int]) -> tuple[int, int] | None:
        """Returns width and height in pixels to which a whole image may be reduced without loss; None for no reduction.

        The part that is used keeps twice the working size, so that resizing smooths as much as from the original.
        """
        if self.crop == "auto":
            return None
        _, (left, top, right, bottom), target = self.place_size(original)
        across, down = max(1, right - left), max(1, bottom - top)
        scale = 2 * max((target[2] - target[0]) / across, (target[3] - target[1]) / down)
        return math.ceil(original[0] * scale), math.ceil(original[1] * scale)

    def apply(self, image: Image.Image, placement: Placement) -> Image.Image:
        """Crops and resizes an image, and pastes it at its placement. The margin is black.

        Args:
            image: The original, 8-bit RGB, or a smaller version of it.
            placement: Placement of the original.
        """
        box = left, top, right, bottom = placement.source_in(*image.size)
        if box != (0, 0, *image.size):
            image = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
        x, y, x_end, y_end = placement.target
        resized = image.resize((x_end - x, y_end - y), Image.Resampling.BILINEAR)
        height, width = self.shape
        if resized.size == (width, height):
            return resized
        whole = Image.new(resized.mode, (width, height))
        whole.paste(resized, (x, y))
        return whole

    def apply_to_mask(self, mask: npt.NDArray[np.bool_], placement: Placement) -> npt.NDArray[np.bool_]:
        """Brings a mask (h, w) to working size like its image. No region in the used part disappears."""
        x, y, x_end, y_end = placement.target
        whole = np.zeros(self.shape, np.bool_)
        whole[y:y_end, x:x_end] = resize_regions(_used(mask, placement), (y_end - y, x_end - x))
        return whole

    def lesion_sizes(self, mask: npt.NDArray[np.bool_], placement: Placement) -> list[float]:
        """Returns the length of the longer side of each region of a mask (h, w) at working size, in pixels."""
        x, y, x_end, y_end = placement.target
        return region_sizes(_used(mask, placement), (y_end - y, x_end - x))


def _used(mask: npt.NDArray[np.bool_], placement: Placement) -> npt.NDArray[np.bool_]:
    """Returns the part of a mask that is used, at least one pixel."""
    left, top, right, bottom = placement.source_in(mask.shape[1], mask.shape[0])
    return mask[top : max(bottom, top + 1), left : max(right, left + 1)]


def _numbers(kind: type[Any], values: Any, count: int) -> Any:
    """Converts a sequence to a tuple of `count` numbers of a type.

    Raises:
        TypeError: If it is not a sequence.
        ValueError: If there are more or fewer, or one is not a number.
    """
    found = tuple(kind(value) for value in values)
    if len(found) != count:
        raise ValueError(f"{len(found)} numbers instead of {count}")
    return found
