"""How large lesions are at working size, and which size or tiles small ones want."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ccd_lightning.data.preprocessing import Preprocessing

SMALL = 2  # px across at working size, below which a lesion hardly counts
WANTED = 8  # px, the width of a unit of the finest level that detectors read by default
SMALLEST = 0.05  # share of the lesions whose largest speaks for the small ones
GRANULE = 32  # px, of which a size is a multiple: the stride of most encoders
WHOLE = 512  # px, above which an image is better cut into tiles
TILE = 256  # px


def describe_lesions(sizes: Sequence[float], preprocessing: Preprocessing) -> str:
    """How many lesions there are and how large the small ones are, in words, with options where they are too small.

    Args:
        sizes: Each one's longer side at working size, in pixels; at least one.
        preprocessing: Of that size.
    """
    low = float(np.quantile(sizes, SMALLEST, method="inverted_cdf"))
    small = sum(size < SMALL for size in sizes)
    message = (
        f"{len(sizes)}, of which {small} less than {SMALL} px across at {preprocessing.size_in_words} px; the smallest"
        f" {SMALLEST:.0%} are at most {low:.1f} px"
    )
    if low >= WANTED:
        return message
    height, width = (GRANULE * math.ceil(side * WANTED / low / GRANULE) for side in preprocessing.shape)
    size = str(height) if height == width else f"'[{height}, {width}]'"
    options = f"--data.size {size}"
    if max(height, width) > WHOLE:
        options += f" --data.tiles '{{side: {TILE}}}'"
    return f"{message}. To see them at {WANTED} px: {options}"
