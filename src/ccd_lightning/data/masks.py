"""Ground truth of an image, from mask images, pages of stacks, slices of volumes or annotations."""

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

LABELS = 16  # a mask with at most this many different values, all dark, contains labels
FILLED = 0.9  # fraction of the region numbers that must fill a 2 x 2 px square somewhere

Bools = NDArray[np.bool_]


def read_mask(
    masks: Sequence[Path], image: Path, preprocessing: Preprocessing, placement: Placement | None = None
) -> Bools:
    """Reads the mask of an image as (H, W) bool, at working size.

    Areas are preserved, and each region keeps at least one pixel, however small it is (`resize_regions`).

    Args:
        masks: All mask files of the image.
        image: Path of the image.
        preprocessing: Preprocessing of the image.
        placement: Placement of the image. None to derive it from the size of the masks.

    Raises:
        UserError: If a file cannot be read, or the files have different sizes.
    """
    joined = open_masks(masks, image)
    return preprocessing.apply_to_mask(joined, placement or preprocessing.place_size(joined.shape[::-1]))


def open_masks(masks: Sequence[Path], image: Path) -> Bools:
    """Reads the union of an image's masks, (height, width), at their original size.

    Raises:
        UserError: If a file cannot be read, or the files have different sizes.
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
    """Reads one mask of an image, (height, width).

    Raises:
        UserError: If the file cannot be read, or is a volume that is not aligned with the image's volume.
    """
    if is_annotation(path):
        return read_annotation(path, image, read_header(image).size)
    file, page = split_page(path)
    if is_volume(file):
        source = split_page(image)[0]
        if is_volume(source) and (message := nifti.describe_misalignment(file, source)):
            raise UserError(f"{file}: {message}")
        return nifti.read_mask(file, page, axis_of(path))
    mask = open_image(path)
    if mask.mode == "F" and not np.isfinite(np.asarray(mask)).all():
        raise UserError(f"{path}: the mask contains NaN or infinite values. Write 0 and 1 instead.")
    return abnormal_pixels(mask)


def abnormal_pixels(mask: Image.Image) -> Bools:
    """Returns which pixels of a mask image are abnormal, (height, width).

    In an image of labels, everything but the background is abnormal (`_labelled`). Otherwise, pixels are abnormal if
    they are brighter than half of the range in any channel. If no pixel is that bright, as in a dim attention map, they
    are abnormal if brighter than half of the image's own maximum.
    """
    labelled = _labelled(mask)
    if labelled is not None:
        return labelled
    values, bright = _bright(mask)
    if not bright.any():
        bright = np.asarray(values > float(values.max()) / 2)
    abnormal: Bools = bright.any(axis=2)
    return abnormal


def _bright(mask: Image.Image) -> tuple[Any, Any]:
    """Returns the values of an image (height, width, channels), and which are brighter than half of the range."""
    values = np.atleast_3d(np.asarray(mask if mask.mode in ("L", "I", "F", *SIXTEEN) else mask.convert("RGB")))
    return values, values > (32767 if mask.mode in SIXTEEN else 127)


def _labelled(mask: Image.Image) -> Bools | None:
    """Returns the mask (height, width) if the values of a mask image are labels, or None if they are brightness.

    Labels are: the colours of a palette, with black or else index 0 as background; few different values, none of them
    bright; and numbered regions (`_are_numbers`).
    """
    values, bright = _bright(mask)
    if mask.mode == "P":
        indices = np.asarray(mask)
        used = [index for index, count in enumerate(mask.histogram()) if count]
        coloured = bool((values != values[:, :, :1]).any())
        if coloured and (len(used) <= LABELS or _are_numbers(indices)):
            black = (values == 0).all(axis=2)
            return ~black if black.any() else indices > 0
        return None if bright.any() else indices > 0  # in a grey palette without bright values, the index counts
    if values.shape[2] == 1 and _are_numbers(values[:, :, 0]):
        return np.asarray(values[:, :, 0] > 0)
    if bright.any() or len(np.unique(values)) > LABELS:
        return None
    return np.asarray((values > 0).any(axis=2))


def _are_numbers(values: NDArray[Any]) -> bool:
    """Returns whether an image (height, width) of more than `LABELS` values numbers regions, such as lesions.

    The values are 0, 1 and so on to at most 255 without a gap. Nine in ten of them fill a square of 2 x 2 px, unlike
    values at a soft border. Most steps between neighbours are larger than 1, unlike in a smooth map.
    """
    if values.dtype.kind not in "iu" or values.min() < 0 or not LABELS <= values.max() <= 255:
        return False
    values = values.astype(np.int16)
    if not np.bincount(values.ravel()).all():
        return False
    down, right = np.diff(values, axis=0), np.diff(values, axis=1)
    flat = (down[:, :-1] == 0) & (right[:-1] == 0) & (right[1:] == 0)
    steps = np.abs(np.concatenate([down[down != 0], right[right != 0]]))
    filled = np.unique(values[:-1, :-1][flat])
    return bool(np.count_nonzero(filled) >= FILLED * values.max() and np.median(steps) > 1)


def grey_share(path: Path) -> float:
    """Returns the fraction of a mask's pixels that are neither dark nor bright, within its own range. 0 for labels."""
    if is_annotation(path) or is_volume(split_page(path)[0]):
        return 0.0
    mask = open_image(path)
    if _labelled(mask) is not None:
        return 0.0
    values = np.asarray(mask.convert("L"), np.float32)
    low, high = float(values.min()), float(values.max())
    return float(((values > low + (high - low) / 4) & (values < high - (high - low) / 4)).mean())
