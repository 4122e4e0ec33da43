"""Ground truth of an image, whatever it is stored as: mask images, pages of stacks, slices of volumes, annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccd_lightning.data.annotations import is_annotation, read_annotation
from ccd_lightning.data.formats import is_volume, nifti, read_header
from ccd_lightning.data.formats.pillow import SIXTEEN
from ccd_lightning.data.images import open_image
from ccd_lightning.data.placement import Placement
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.data.sources import axis_of, split_page
from ccd_lightning.errors import UserError

LABELS = 16  # a mask of at most so many different values, all dark, holds labels

Bools = NDArray[np.bool_]


def read_mask(
    masks: Sequence[Path], image: Path, preprocessing: Preprocessing, placement: Placement | None = None
) -> Bools:
    """Reads what is abnormal in an image as (H, W) bool, at working size.

    Areas are kept, and so is at least one pixel of each region, however small it is (`resize_regions`).

    Args:
        masks: All files that mark something in the image.
        image: The image.
        preprocessing: What brought it to working size.
        placement: Where it lies there; None where the masks' own size says it.

    Raises:
        UserError: If a file cannot be read, or the files are of different sizes.
    """
    joined = open_masks(masks, image)
    return preprocessing.apply_to_mask(joined, placement or preprocessing.place_size(joined.shape[::-1]))


def open_masks(masks: Sequence[Path], image: Path) -> Bools:
    """What any of the masks of an image marks, (height, width), at their own size.

    Raises:
        UserError: If a file cannot be read, or the files are of different sizes.
    """
    joined = open_mask(masks[0], image)
    for path in masks[1:]:
        one = open_mask(path, image)
        if one.shape != joined.shape:
            raise UserError(
                f"{path}: the mask has {one.shape[1]} x {one.shape[0]} pixels, but {masks[0]} of the same image has"
                f" {joined.shape[1]} x {joined.shape[0]}. Export both at the size of the image."
            )
        joined = joined | one
    return joined


def open_mask(path: Path, image: Path) -> Bools:
    """What one mask of an image marks, (height, width).

    Raises:
        UserError: If the file cannot be read, or its volume does not lie where the image's does.
    """
    if is_annotation(path):
        return read_annotation(path, image, read_header(image).size)
    file, page = split_page(path)
    if is_volume(file):
        source = split_page(image)[0]
        if is_volume(source) and (message := nifti.tell_place(file, source)):
            raise UserError(f"{file}: {message}")
        return nifti.read_mask(file, page, axis_of(path))
    return abnormal_pixels(open_image(path))


def abnormal_pixels(mask: Image.Image) -> Bools:
    """Which pixels of a mask image are abnormal, (height, width).

    Abnormal is what is brighter than half of the range in any channel. In an image that holds nothing as bright it is
    whatever is not 0 where the values are few, as labels 0 and 1 are, and else, as in a dim attention map, whatever is
    brighter than half of the image's own maximum.
    """
    values = np.atleast_3d(np.asarray(mask if mask.mode in ("L", "I", "F", *SIXTEEN) else mask.convert("RGB")))
    half = 32767 if mask.mode in SIXTEEN else 127
    bright: Any = values > half
    if mask.mode == "P" and not bright.any():
        bright = np.atleast_3d(np.asarray(mask)) > 0  # colours that say nothing: what counts is the index
    elif not bright.any():
        bright = np.asarray(values > (0 if len(np.unique(values)) <= LABELS else float(values.max()) / 2))
    abnormal: Bools = bright.any(axis=2)
    return abnormal


def grey_share(path: Path) -> float:
    """Share of the pixels of a mask image that are neither dark nor bright, within its own range; 0 of other masks."""
    if is_annotation(path) or is_volume(split_page(path)[0]):
        return 0.0
    values = np.asarray(open_image(path).convert("L"), np.float32)
    low, high = float(values.min()), float(values.max())
    return float(((values > low + (high - low) / 4) & (values < high - (high - low) / 4)).mean())
