"""From distances at positions to an anomaly map and an image score."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ccd_lightning.errors import UserError
from ccd_lightning.grids import IMAGE, Grids, resample

REFERENCE = 256  # px, the size of images that the published width of the blur is for


def to_image(distances: Tensor, grid: Grids, height: int, width: int, blur: float) -> Tensor:
    """Brings distances at positions to the image's pixels, and smooths them.

    Args:
        distances: (B, h, w).
        grid: Where the positions are.
        height: H of the image.
        width: W of the image.
        blur: Standard deviation of the Gaussian that smooths, in pixels of an image 256 px wide.

    Returns:
        (B, H, W).
    """
    return smooth(resample(distances, grid, IMAGE, (height, width)), blur * width / REFERENCE)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Convolves maps (B, H, W) with a Gaussian of standard deviation sigma, in pixels; the border is mirrored."""
    reach = round(4 * sigma)
    if reach == 0:
        return maps
    reach = min(reach, min(maps.shape[-2:]) - 1)  # as far as the border can be mirrored
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype) / sigma) ** 2)
    weights = weights / weights.sum()
    padded = functional.pad(maps[:, None], (reach,) * 4, mode="reflect")
    rows = functional.conv2d(padded, weights.view(1, 1, -1, 1))  # one axis after the other: the Gaussian is separable
    return functional.conv2d(rows, weights.view(1, 1, 1, -1))[:, 0]


def image_scores(maps: Tensor, top: float) -> Tensor:
    """Scores of images: the mean over the highest values of their maps.

    Args:
        maps: (B, H, W).
        top: Their share of all values, in [0, 1]; 0 takes the maximum alone, 1 the mean of the map.

    Returns:
        (B,).
    """
    values = maps.flatten(1)
    if top == 1:
        return values.mean(dim=1)
    count = max(1, math.ceil(top * values.shape[1]))
    return values.topk(count, dim=1).values.mean(dim=1) if count > 1 else values.amax(dim=1)


def check_scoring(blur: float, top: float) -> None:
    """Refuses options that cannot be.

    Raises:
        UserError: If one is impossible.
    """
    if blur < 0:
        raise UserError(f"model.blur is {blur}, but must be 0 px or more.")
    if not 0 <= top <= 1:
        raise UserError(f"model.top is {top}, but must be a share between 0 (the maximum) and 1 (the mean).")
