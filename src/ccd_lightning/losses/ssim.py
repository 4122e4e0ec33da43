"""Structural similarity, as a number and as maps.

One pyramid serves IGD's loss and its maps. `pytorch-msssim`, against which this is tested, gives no maps and refuses
images of 32 px, the published size of IGD's windows. Other libraries give the similarity of one level, not its factor
of contrast, of which all levels but the last are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ccd_lightning.grids import IMAGE, pooled, resample

LEAST = 0.05  # the mean similarity of a level below which gradients are not its own


class Similarity(NamedTuple):
    """Maps (B, C, H, W) of one level: of structural similarity, and of its factor of contrast and structure."""

    whole: Tensor
    contrast: Tensor


def similarity_pyramid(
    first: Tensor, second: Tensor, levels: int, window: int, data_range: float
) -> tuple[Similarity, ...]:
    """Similarity maps of two batches of images and of their halvings (Wang et al., Asilomar 2003).

    Windows are Gaussian with a deviation of 1.5 px. Those at the border are cut off there, and their weights
    normalised.

    Args:
        first: (B, C, H, W), H and W divisible by 2 ** (levels - 1).
        second: As the first.
        levels: How many: the last one is smaller by 2 ** (levels - 1).
        window: Side of the windows in pixels, odd, at most that of the last level.
        data_range: Difference of the largest and the smallest value that pixels can have.

    Returns:
        A pair of maps a level, values in [-1, 1].

    Raises:
        ValueError: If the images are too small for the levels or the window.
    """
    side = min(first.shape[-2:])
    if window % 2 == 0 or side % 2 ** (levels - 1) or side // 2 ** (levels - 1) < window:
        raise ValueError(f"Similarity at {levels} levels with a window of {window} px does not go with {side} px")
    maps = []
    for level in range(levels):
        if level:
            first, second = functional.avg_pool2d(first, 2), functional.avg_pool2d(second, 2)
        maps.append(_similarity(first, second, window, data_range))
    return tuple(maps)


def ms_ssim(pyramid: Sequence[Similarity], weights: Sequence[float], window: int, mask: Tensor | None = None) -> Tensor:
    """Multi-scale structural similarity (Wang et al., Asilomar 2003, eq. 7).

        MS-SSIM = mean over channels of  S_M^w_M  prod_{j < M} C_j^w_j

    with S_M the mean of the last level's similarity and C_j that of level j's contrast and structure, both over the
    windows that lie within the image, and not below 0. A mean below 0 makes the product 0, and its gradient with it: a
    decoder that begins with the opposite of an image at one level could not learn from it. So gradients there are those
    of a small positive number, while the value is as published.

    Args:
        pyramid: What `similarity_pyramid` gives.
        weights: w_j, one a level.
        window: That of the pyramid.
        mask: Pixels that count, (B, H, W) bool: the means are then over the windows of each level of which at least
            half of the middle pixel counts, those at the border included. None for all.

    Returns:
        (B,) in [0, 1].
    """
    levels = [level.contrast for level in pyramid[:-1]] + [pyramid[-1].whole]
    inside = slice(window // 2, -(window // 2) or None)
    if mask is None:
        means = torch.stack([level[..., inside, inside].mean(dim=(2, 3)) for level in levels])  # (M, B, C)
    else:
        means = torch.stack([mean_within(level, _halved(mask, power)) for power, level in enumerate(levels)])
    powers = torch.tensor(weights, dtype=means.dtype, device=means.device).view(-1, 1, 1)
    value = (means.relu() ** powers).prod(dim=0).detach()
    small = LEAST * torch.exp(means.clamp(max=LEAST) / LEAST - 1)  # touches the identity at LEAST
    passing = (torch.where(means > LEAST, means, small) ** powers).prod(dim=0)
    return (value + (passing - passing.detach())).mean(dim=1)


def mean_within(values: Tensor, mask: Tensor) -> Tensor:
    """Means of values (B, H, W) or (B, C, H, W) over the pixels that a mask (B, H, W) keeps; 0 where it keeps none."""
    kept = mask if values.ndim == mask.ndim else mask[:, None]
    return torch.where(kept, values, 0).sum(dim=(-2, -1)) / kept.sum(dim=(-2, -1)).clamp(min=1)


def _halved(mask: Tensor, times: int) -> Tensor:
    """A mask at half of the resolution, so many times: where at least half of the pixels counts, or else any."""
    share = functional.avg_pool2d(mask.float()[:, None], 2**times)[:, 0]
    most = share >= 0.5
    none = ~most.any(dim=2, keepdim=True).any(dim=1, keepdim=True)
    return most | (none & (share > 0))


def dissimilarity_map(pyramid: Sequence[Similarity], weights: Sequence[float]) -> Tensor:
    """The weighted sum over levels of 1 - SSIM, each brought to the first one's size: (B, H, W), mean over channels."""
    size = pyramid[0].whole.shape[-2:]
    maps = [1 - level.whole.mean(dim=1, keepdim=True) for level in pyramid]
    resized = [resample(one, pooled(2**level), IMAGE, size) for level, one in enumerate(maps)]
    return torch.stack([weight * one[:, 0] for weight, one in zip(weights, resized, strict=True)]).sum(dim=0)


def _similarity(first: Tensor, second: Tensor, window: int, data_range: float) -> Similarity:
    rows, columns = (_blur_matrix(side, window, first.dtype, first.device) for side in first.shape[-2:])
    stack = torch.stack([first, second, first * first, second * second, first * second])
    mean1, mean2, square1, square2, product = rows @ stack @ columns.T  # several times as fast as convolutions on CPUs
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    contrast = (2 * (product - mean1 * mean2) + c2) / (square1 - mean1**2 + square2 - mean2**2 + c2)
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    contrast, luminance = contrast.clamp(max=1), luminance.clamp(max=1)  # by rounding more, where images are flat
    return Similarity(luminance * contrast, contrast)


@lru_cache(maxsize=64)
def _blur_matrix(side: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(side, side): a row a position, with the weights of the window around it."""
    with torch.inference_mode(False):  # what is made once in a test must serve a training as well
        distance = torch.arange(side).view(-1, 1) - torch.arange(side)
        weights = torch.exp(-(distance**2) / (2 * 1.5**2)) * (distance.abs() <= window // 2)
        return (weights / weights.sum(dim=1, keepdim=True)).to(device, dtype)
