"""Tiles of large images for detectors."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from ccd_lightning.ranges import at_least, within

OVERLAP = 0.25  # default overlap of neighbouring tiles as a fraction of their side
GRANULES = (32, 16, 8)  # px: if the number of tiles is given, their side is a multiple of one of these, if possible


@dataclass(frozen=True)
class Tiles:
    """How detectors divide large images into tiles, each of which is scored as an image.

    Attributes:
        side: Side of the square tiles, in pixels of the working image.
        overlap: Minimum overlap of neighbouring tiles, in pixels. None uses a quarter of the side.
        top: The image score is the mean of this share of the highest tile scores. 0 uses the highest score.
    """

    side: int
    overlap: int | None = None
    top: float = 0.0

    def __post_init__(self) -> None:
        """Validates all options.

        Raises:
            UserError: If an option is out of its range.
        """
        at_least("data.tiles.side", self.side, 1)
        if self.overlap is not None:
            within("data.tiles.overlap", self.overlap, 0, self.side - 1, ", less than the side")
        within("data.tiles.top", self.top, 0, 1, ": 0 is the maximum, 1 the mean")

    @property
    def shared(self) -> int:
        """Minimum overlap of neighbouring tiles in pixels."""
        return round(OVERLAP * self.side) if self.overlap is None else self.overlap

    def along(self, length: int) -> int:
        """Returns how many tiles cover a side of an image. Its length in pixels must be at least the tiles' side."""
        return 1 + math.ceil((length - self.side) / (self.side - self.shared))


def tiles_along(length: int, count: int) -> Tiles:
    """Returns tiles of which `count` cover a side of an image, of a length in pixels, with the default overlap.

    Their side is a multiple of 32 px if possible, as most encoders need it.
    """
    least = math.ceil(length / (1 + (1 - OVERLAP) * (count - 1)))
    rounded = (granule * math.ceil(least / granule) for granule in GRANULES)
    sides = (side for side in itertools.chain(rounded, range(least, length + 1)) if side <= length)
    return next((tiles for tiles in map(Tiles, sides) if tiles.along(length) == count), Tiles(min(least, length)))
