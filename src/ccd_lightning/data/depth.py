"""From grey values of more than 8 bits to 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccd_lightning.data.formats.picture import Range
from ccd_lightning.data.formats.pillow import SIXTEEN
from ccd_lightning.errors import UserError

DEEP = (*SIXTEEN, "I", "F")
NARROW = 4096  # of the 65,536 values of 16 bits; an image that spans fewer has at most 15 grey levels in 8 bits


def eight_bits(image: Image.Image, path: Path, limits: Range | None = None) -> Image.Image:
    """Scales an image of more than 8 bits to 8; any other one is returned as it is.

    Args:
        image: Of any mode.
        path: Its file, for messages.
        limits: The values that become 0 and 255; those beyond are cut off, NaN becomes 0. None takes all 16 bits.

    Raises:
        UserError: If there are no limits, and the image has more than 16 bits or spans few of their values; or if no
            pixel of more than 16 bits lies within the limits.
    """
    if image.mode not in DEEP:
        return image
    values = np.asarray(image)
    if limits is not None:
        low, high = limits
        if image.mode not in SIXTEEN and not ((values >= low) & (values <= high)).any():
            raise UserError(
                f"{path}: no pixel has a value within data.range, {low:g} to {high:g}. Store the image at the scale of"
                " the training images."
            )
        share = (values.astype(np.float64) - low) / (high - low)
        return Image.fromarray(np.rint(255 * np.nan_to_num(share).clip(0, 1)).astype(np.uint8))
    way_out = "Give the range with --data.range '[LOW, HIGH]'"
    if image.mode not in SIXTEEN:
        what = "integers of more than 16 bits, or with a sign" if image.mode == "I" else "floating point"
        raise UserError(
            f"{path}: pixels of {what}, whose range is not known. {way_out}, or export the image with 8 or 16 bits."
        )
    low, high = int(values.min()), int(values.max())
    if 0 < high - low < NARROW or 0 < high < NARROW:
        raise UserError(
            f"{path}: 16 bits of which few values are used ({low} to {high}), and the range of the training images is"
            f" not known. {way_out}, or export the image scaled to all 16 bits, or with 8 bits."
        )
    return Image.fromarray((values >> 8).astype(np.uint8))


def own_range(image: Image.Image) -> Range | None:
    """The smallest and the largest finite value of an image of more than 8 bits; None for any other one."""
    if image.mode not in DEEP:
        return None
    values: NDArray[np.float64] = np.asarray(image).astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    return low, high if high > low else low + 1
