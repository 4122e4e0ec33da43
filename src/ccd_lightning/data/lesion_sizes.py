"""Lesion sizes at working size, and the image size or tiles that small lesions need."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ccd_lightning.data.preprocessing import Preprocessing

SMALL = 2  # px: lesions smaller than this at working size are hardly visible
WANTED = 8  # px: width of a feature position at the finest level that detectors use by default
SMALLEST = 0.05  # fraction of the smallest lesions, whose largest one is reported
GRANULE = 32  # px: sizes are multiples of this, the stride of most encoders
WHOLE = 512  # px: size above which an image is better divided into tiles
TILE = 256  # px


def describe_lesions(sizes: Sequence[float], preprocessing: Preprocessing, own: tuple[float, float]) -> str:
    """Describes the number of lesions and the size of small ones, and suggests options if they are too small.

    Args:
        sizes: Longer side of each lesion at working size, in pixels. At least one.
        preprocessing: Preprocessing with this working size.
        own: Height and width of the images' files in pixels. No larger size is suggested.
    """
    low = float(np.quantile(sizes, SMALLEST, method="inverted_cdf"))
    small = sum(size < SMALL for size in sizes)
    message = (
        f"{len(sizes)}, of which {small} less than {SMALL} px across at {preprocessing.size_in_words} px; the smallest"
        f" {SMALLEST:.0%} are at most {low:.1f} px"
    )
    if low >= WANTED:
        return message
    largest = _enlargement(own, preprocessing)
    wanted = [GRANULE * math.ceil(side * WANTED / low / GRANULE) for side in preprocessing.shape]
    limits = [GRANULE * math.floor(side * largest / GRANULE) for side in preprocessing.shape]
    height, width = (min(pair) for pair in zip(wanted, limits, strict=True))
    if height <= preprocessing.shape[0] and width <= preprocessing.shape[1]:
        return f"{message}. The images have {own[1]:.0f} x {own[0]:.0f} px; enlarging them does not help"
    options = size_option(height, width)
    if max(height, width) > WHOLE:
        options += f" --data.tiles '{{side: {TILE}}}'"
    if [height, width] != wanted:
        return f"{message}. To see them as large as they are in the images: {options}"
    return f"{message}. To see them at {WANTED} px: {options}"


def size_option(height: int, width: int) -> str:
    """Returns the option that sets a working size in pixels, as written on the command line."""
    return f"--data.size {height}" if height == width else f"--data.size '[{height}, {width}]'"


def _enlargement(own: tuple[float, float], preprocessing: Preprocessing) -> float:
    """Returns the factor by which the working size can grow before images are enlarged."""
    left, top, right, bottom = preprocessing.crop if isinstance(preprocessing.crop, tuple) else (0, 0, 1, 1)
    used = own[0] * (bottom - top), own[1] * (right - left)
    factors = [side / working for side, working in zip(used, preprocessing.shape, strict=True)]
    return max(factors) if preprocessing.fit == "letterbox" else min(factors)
