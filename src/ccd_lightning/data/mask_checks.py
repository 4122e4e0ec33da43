"""Checks of masks that would make pixel metrics unsound."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ccd_lightning.data.findings import Finding, without_name
from ccd_lightning.data.images import find_placement
from ccd_lightning.data.lesion_sizes import SMALL
from ccd_lightning.data.manifest import Row
from ccd_lightning.data.masks import grey_share, open_mask
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.regions import count_outside
from ccd_lightning.errors import UserError

BETWEEN = 0.01  # fraction of a mask's pixels that may lie between a quarter and three quarters of its range


def check_masks(row: Row, preprocessing: Preprocessing) -> tuple[list[Finding], list[float]]:
    """Checks the masks of an image.

    Args:
        row: The image and its masks.
        preprocessing: Crop and working size, by which lesions can be too small.

    Returns:
        Findings, and the length of the longer side of each connected region at working size, in pixels.
    """
    try:
        placement, found = find_placement(row.path, preprocessing), list[Finding]()
        joined = np.zeros(placement.original[::-1], np.bool_)
        for path in row.masks:
            marked = open_mask(path, row.path)
            if marked.shape != joined.shape:
                sizes = (f"{width} x {height}" for height, width in (marked.shape, joined.shape))
                message = " pixels, where its image has ".join(sizes) + "."
                found.append(Finding("warning", "masks of another size", path, message, row.path))
            joined = joined | marked if marked.shape == joined.shape else marked
            if (share := grey_share(path)) > BETWEEN:
                message = f"not black and white: {share:.0%} of it is grey, of which the brighter half is abnormal."
                found.append(Finding("warning", "grey masks", path, message, row.path))
    except UserError as error:
        message = without_name(error, row.masks[0])
        return [Finding("error", "masks that cannot be read", row.masks[0], message, row.path)], []
    found += _extent(row, joined)
    lesions = preprocessing.lesion_sizes(joined, placement)
    outside, total = count_outside(joined, placement.source_in(joined.shape[1], joined.shape[0]))
    if outside:
        message = f"{outside} of {total} lesions are outside of the used part of the image."
        if not lesions:
            message = f"no lesion is in the used part of the image ({total} outside of it)."
        found.append(Finding("warning", "lesions outside", row.masks[0], message, row.path))
    if small := sum(size < SMALL for size in lesions):
        where = f"at {preprocessing.size_in_words} px"
        message = f"{small} of {len(lesions)} lesions less than {SMALL} px across {where}."
        found.append(Finding("warning", "small lesions", row.masks[0], message, row.path))
    return found, lesions


def _extent(row: Row, marked: NDArray[np.bool_]) -> Iterator[Finding]:
    """Checks whether a mask (height, width) is empty or marks everything."""
    if not marked.any():
        message = f"empty, though the image is {row.anomaly_type}."
        yield Finding("warning", "empty masks", row.masks[0], message, row.path)
    elif marked.all():
        message = "all of the image is marked as abnormal, so that no pixel of it counts as normal."
        yield Finding("warning", "masks that cover the whole image", row.masks[0], message, row.path)
