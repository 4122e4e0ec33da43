"""How a detector cuts large images."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from ccd_lightning.ranges import at_least, within

OVERLAP = 0.25  # share of a tile's side that neighbours have in common, where nothing is said
GRANULES = (32, 16, 8)  # px, of which a tile's side is a multiple where the number of tiles is given, if it can be


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
        """Checks all.

        Raises:
            UserError: If an option is out of its range.
        """
        at_least("data.tiles.side", self.side, 1)
        if self.overlap is not None:
            within("data.tiles.overlap", self.overlap, 0, self.side - 1, ", less than the side")
        within("data.tiles.top", self.top, 0, 1, ": 0 is the maximum, 1 the mean")

    @property
    def shared(self) -> int:
        """Pixels that neighbours have in common at least."""
        return round(OVERLAP * self.side) if self.overlap is None else self.overlap

    def along(self, length: int) -> int:
        """How many tiles cover a side of an image, of a length in pixels that is not less than theirs."""
        return 1 + math.ceil((length - self.side) / (self.side - self.shared))


def tiles_along(length: int, count: int) -> Tiles:
    """Tiles of which so many cover a side of an image, of a length in pixels, with the usual overlap.

    Their side is a multiple of 32 px if it can be, which most encoders want.
    """
    least = math.ceil(length / (1 + (1 - OVERLAP) * (count - 1)))
    rounded = (granule * math.ceil(least / granule) for granule in GRANULES)
    sides = (side for side in itertools.chain(rounded, range(least, length + 1)) if side <= length)
    return next((tiles for tiles in map(Tiles, sides) if tiles.along(length) == count), Tiles(min(least, length)))
