"""From distances at positions to an anomaly map and an image score."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from ccd_lightning.grids import IMAGE, Grids, Matrix, interpolations, multiplied
from ccd_lightning.models.content import ALL, Counted
from ccd_lightning.ranges import at_least, within

REFERENCE = 256  # px, the size of images that the published width of the blur is for
TINY = 1e-6  # a weight below is what rounding leaves


def to_image(distances: Tensor, grid: Grids, height: int, width: int, blur: float, counted: Counted = ALL) -> Tensor:
    """Brings distances at positions to the image's pixels, and smooths them.

    Args:
        distances: (B, h, w).
        grid: Where the positions are.
        height: H of the image.
        width: W of the image.
        blur: Standard deviation of the Gaussian that smooths, in pixels of an image whose shorter side has 256 px.
        counted: Positions whose distances count, and pixels that have a value. Other positions are left out of both
            interpolation and smoothing, by dividing what is left by its weights.

    Returns:
        (B, H, W); 0 at the pixels that have no value.
    """
    sigma, size = blur * min(height, width) / REFERENCE, (height, width)
    spread = interpolations(distances.shape[-2:], grid, IMAGE, size)
    blurred = blurring(height, sigma), blurring(width, sigma)
    if counted.positions is None or counted.pixels is None:  # neither is there without the other
        return multiplied(distances, (_product(blurred[0], spread[0]), _product(blurred[1], spread[1])))
    count = counted.positions.expand_as(distances)
    values = torch.stack([torch.where(count, distances, 0), count.to(distances.dtype)])
    sums, weights = multiplied(values, spread)
    known = weights > TINY
    kept = torch.stack([torch.where(known, sums / weights.clamp(min=TINY), 0), known.to(sums.dtype)])  # (2, B, H, W)
    sums, weights = multiplied(kept, blurred)
    return torch.where(counted.pixels, sums / weights.clamp(min=TINY), 0)


def _product(first: Matrix | None, second: Matrix | None) -> Matrix | None:
    """The product of two matrices, either of which may be the identity (None)."""
    if first is None or second is None:
        return second if first is None else first
    product: Matrix = first @ second
    return product


@functools.lru_cache(maxsize=64)
def blurring(length: int, sigma: float) -> Matrix | None:
    """What convolves an axis with a Gaussian of standard deviation sigma, in pixels, the border being mirrored.

    Returns:
        (length, length), rows that sum up to 1; None where sigma is too small to change anything.
    """
    reach = min(round(4 * sigma), length - 1)  # as far as the border can be mirrored
    if reach <= 0:
        return None
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    places = np.abs(np.arange(length)[:, None] + steps)
    places = np.where(places >= length, 2 * (length - 1) - places, places)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], places), weights / weights.sum())
    return matrix


def image_scores(maps: Tensor, top: float, mask: Tensor | None = None) -> Tensor:
    """Scores of images: the mean over the highest values of their maps.

    Args:
        maps: (B, H, W), >= 0.
        top: Their share of all values, in [0, 1]; 0 takes the maximum alone, 1 the mean of the map.
        mask: The values that count, (B, H, W) bool; None for all.

    Returns:
        (B,); 0 for an image without a value that counts.
    """
    values = maps.flatten(1)
    if mask is not None:
        return _scores_within(values, mask.flatten(1), top)
    if top == 1:
        return values.mean(dim=1)
    count = max(1, math.ceil(top * values.shape[1]))
    return values.topk(count, dim=1).values.mean(dim=1) if count > 1 else values.amax(dim=1)


def _scores_within(values: Tensor, mask: Tensor, top: float) -> Tensor:
    """The scores of `image_scores` for values and masks (B, N), of each image's own number of values."""
    values, total = torch.where(mask, values, 0), mask.sum(dim=1)
    if top == 0:
        return values.amax(dim=1)
    if top == 1:
        return values.sum(dim=1) / total.clamp(min=1)
    highest = values.topk(max(1, math.ceil(top * values.shape[1])), dim=1).values  # as many as may be needed
    exact = torch.float32 if values.device.type == "mps" else torch.float64  # in which 0.1 of 100 is 10, not 11
    count = (top * total.to(exact)).ceil().clamp(min=1)[:, None]
    chosen = torch.arange(highest.shape[1], device=values.device) < count
    return torch.where(chosen, highest, 0).sum(dim=1) / count[:, 0].to(values.dtype)


def check_scoring(blur: float, top: float) -> None:
    """Refuses options that cannot be.

    Raises:
        UserError: If one is impossible.
    """
    at_least("model.blur", blur, 0)
    within("model.top", top, 0, 1, ": 0 is the maximum, 1 the mean")
