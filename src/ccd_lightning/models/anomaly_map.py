"""Turns distances at positions into an anomaly map and an image score."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from ccd_lightning.grids import IMAGE, Grids, Matrix, interpolations, multiplied
from ccd_lightning.models.content import ALL, Counted
from ccd_lightning.ranges import at_least, within

REFERENCE = 256  # px, the image size for which the papers give the width of the blur
TINY = 1e-6  # smaller weights are rounding errors


def to_image(distances: Tensor, grid: Grids, height: int, width: int, blur: float, counted: Counted = ALL) -> Tensor:
    """Upsamples distances at positions to the resolution of the image and smooths them.

    Args:
        distances: Distances, (B, h, w).
        grid: Grid of the positions in the image.
        height: Height H of the image in pixels.
        width: Width W of the image in pixels.
        blur: Standard deviation of the Gaussian blur, in pixels of an image whose shorter side has 256 px.
        counted: Positions whose distances count, and pixels that get a value. All other positions are excluded from
            interpolation and smoothing: the weighted sums are normalised by the weights of the remaining positions.

    Returns:
        Maps (B, H, W); 0 at the pixels that get no value.
    """
    sigma, size = blur * min(height, width) / REFERENCE, (height, width)
    interpolation = interpolations(distances.shape[-2:], grid, IMAGE, size)
    blurred = blurring(height, sigma), blurring(width, sigma)
    if counted.positions is None or counted.pixels is None:  # either both are given or neither
        return multiplied(distances, (_product(blurred[0], interpolation[0]), _product(blurred[1], interpolation[1])))
    count = counted.positions.expand_as(distances)
    values = torch.stack([torch.where(count, distances, 0), count.to(distances.dtype)])
    sums, weights = multiplied(values, interpolation)
    known = weights > TINY
    kept = torch.stack([torch.where(known, sums / weights.clamp(min=TINY), 0), known.to(sums.dtype)])  # (2, B, H, W)
    sums, weights = multiplied(kept, blurred)
    return torch.where(counted.pixels, sums / weights.clamp(min=TINY), 0)


def _product(first: Matrix | None, second: Matrix | None) -> Matrix | None:
    """Returns the product of two matrices; None stands for the identity."""
    if first is None or second is None:
        return second if first is None else first
    product: Matrix = first @ second
    return product


@functools.lru_cache(maxsize=64)
def blurring(length: int, sigma: float) -> Matrix | None:
    """Returns the matrix that convolves an axis with a Gaussian, with mirrored borders.

    Args:
        length: Length of the axis in pixels.
        sigma: Standard deviation in pixels.

    Returns:
        (length, length) with rows that sum to 1; None if sigma is too small to change anything.
    """
    reach = min(round(4 * sigma), length - 1)  # mirroring reaches no further than the axis is long
    if reach <= 0:
        return None
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    indices = np.abs(np.arange(length)[:, None] + steps)
    indices = np.where(indices >= length, 2 * (length - 1) - indices, indices)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], indices), weights / weights.sum())
    return matrix


def image_scores(maps: Tensor, top: float, mask: Tensor | None = None) -> Tensor:
    """Returns image scores: the mean of the highest values of each map.

    Args:
        maps: Anomaly maps, (B, H, W), >= 0.
        top: Share of the values that are averaged, in [0, 1]: 0 takes the maximum, 1 the mean of the map.
        mask: Values that count, (B, H, W) bool; None for all.

    Returns:
        Scores (B,); 0 for an image in which no value counts.
    """
    values = maps.flatten(1)
    if mask is not None:
        return _scores_within(values, mask.flatten(1), top)
    if top == 1:
        return values.mean(dim=1)
    count = max(1, math.ceil(top * values.shape[1]))
    return values.topk(count, dim=1).values.mean(dim=1) if count > 1 else values.amax(dim=1)


def _scores_within(values: Tensor, mask: Tensor, top: float) -> Tensor:
    """Computes `image_scores` for values and masks (B, N), where each image has its own number of values."""
    values, total = torch.where(mask, values, 0), mask.sum(dim=1)
    if top == 0:
        return values.amax(dim=1)
    if top == 1:
        return values.sum(dim=1) / total.clamp(min=1)
    highest = values.topk(max(1, math.ceil(top * values.shape[1])), dim=1).values  # the most that any image needs
    exact = torch.float32 if values.device.type == "mps" else torch.float64  # where ceil(0.1 * 100) is 10, not 11
    count = (top * total.to(exact)).ceil().clamp(min=1)[:, None]
    chosen = torch.arange(highest.shape[1], device=values.device) < count
    return torch.where(chosen, highest, 0).sum(dim=1) / count[:, 0].to(values.dtype)


def check_scoring(blur: float, top: float) -> None:
    """Checks the options of scoring.

    Args:
        blur: Value of `model.blur`, >= 0.
        top: Value of `model.top`, in [0, 1].

    Raises:
        UserError: If a value is out of range.
    """
    at_least("model.blur", blur, 0)
    within("model.top", top, 0, 1, ": 0 is the maximum, 1 the mean")
