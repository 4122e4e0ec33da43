"""Description of how image shapes change at working size."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from ccd_lightning.data.lesion_sizes import GRANULE, size_option
from ccd_lightning.data.placement import Placement
from ccd_lightning.data.preprocessing import Preprocessing

STRETCH = 1.25  # stretch factor from which squashed images look distorted
ENLARGED = 1.25  # factor from which resized images count as enlarged


def describe_shapes(placements: npt.NDArray[np.int32], preprocessing: Preprocessing) -> str:
    """Describes how images are brought to working size, if a relevant choice was made.

    Args:
        placements: Placements of the images (`Placement.numbers`), (N, 10), N > 0.
        preprocessing: Preprocessing of the images.

    Returns:
        A sentence. Empty if whole images with about the working aspect ratio are resized, and not enlarged.
    """
    parsed = [Placement.from_numbers(numbers) for numbers in placements.tolist()]
    factors = np.array([_factors(placement) for placement in parsed])  # (N, 2)
    most, least = factors.max(axis=1), factors.min(axis=1)
    stretch, enlargement = float(np.median(most / least)), float(np.median(least))
    parts = []
    if preprocessing.crop == "auto":
        shares = [_area(placement.source) / (placement.original[0] * placement.original[1]) for placement in parsed]
        parts.append(f"cropped to their content (data.crop auto; {np.median(shares):.0%} of an image in the median)")
    how = {"squash": "squashed", "letterbox": "letterboxed", "crop": "cropped in the middle and brought"}
    height, width = preprocessing.shape
    stretched = preprocessing.fit == "squash" and stretch >= STRETCH
    changes = []
    if stretched:
        changes.append(f"stretches them by {stretch:.2f} (--data.fit letterbox or crop keeps their shape)")
    if enlargement >= ENLARGED:
        own = (GRANULE * max(1, round(side / enlargement / GRANULE)) for side in preprocessing.shape)
        changes.append(f"enlarges them by {enlargement:.2f} ({size_option(*own)} is about their own size)")
    verb = how[preprocessing.fit] if stretched or preprocessing.fit != "squash" else "brought"
    resized = f"{verb} to {width} x {height} px" + (f", which {' and '.join(changes)}" if changes else "")
    parts.append(resized)
    if tiling := preprocessing.tiling:
        parts.append(f"seen by detectors in tiles of {tiling.side} px that overlap by {tiling.shared} px or more")
    plain = preprocessing.fit == "squash" and preprocessing.crop != "auto" and not tiling and not changes
    return "" if plain else f"images of {_common_size(parsed)} are {', '.join(parts)}"


def _factors(placement: Placement) -> tuple[float, float]:
    """Returns the factors by which an image is enlarged along its width and height; below 1 if it is reduced."""
    source, target = placement.source, placement.target
    across, down = ((target[end] - target[end - 2]) / max(1, source[end] - source[end - 2]) for end in (2, 3))
    return across, down


def _area(box: tuple[int, int, int, int]) -> int:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def _common_size(placements: list[Placement]) -> str:
    sizes = Counter(placement.original for placement in placements)
    (width, height), _ = sizes.most_common(1)[0]
    return f"{width} x {height} px" + (f" and {len(sizes) - 1} other sizes" if len(sizes) > 1 else "")
