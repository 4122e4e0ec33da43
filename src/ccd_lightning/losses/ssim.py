"""Structural similarity, as a number and as maps.

The same pyramid is used for IGD's loss and maps. `pytorch-msssim`, against which this is tested, returns no maps and
rejects images of 32 px, the published size of IGD's windows. Other libraries return the similarity of one level, but
not its contrast factor, which MS-SSIM needs for all levels but the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ccd_lightning.grids import IMAGE, pooled, resample

MIN_MEAN = 0.05  # below this mean similarity of a level, gradients are replaced


class Similarity(NamedTuple):
    """Maps (B, C, H, W) of one level: structural similarity, and its contrast-structure factor."""

    whole: Tensor
    contrast: Tensor


def similarity_pyramid(
    first: Tensor, second: Tensor, levels: int, window: int, data_range: float
) -> tuple[Similarity, ...]:
    """Returns similarity maps of two batches of images at several resolutions (Wang et al., Asilomar 2003).

    Windows are Gaussian with a standard deviation of 1.5 px. They are cut off at the border and renormalised there.

    Args:
        first: First images, (B, C, H, W), with H and W divisible by 2 ** (levels - 1).
        second: Second images, (B, C, H, W).
        levels: Number of levels; each has half the resolution of the one before.
        window: Side of the windows in pixels, odd, at most the side of the last level.
        data_range: Difference between the largest and the smallest possible pixel value.

    Returns:
        Two maps per level, with values in [-1, 1].

    Raises:
        ValueError: If the images are too small for the levels or the window.
    """
    side = min(first.shape[-2:])
    if window % 2 == 0 or side % 2 ** (levels - 1) or side // 2 ** (levels - 1) < window:
        raise ValueError(f"Similarity at {levels} levels with a window of {window} px does not fit {side} px")
    maps = []
    for level in range(levels):
        if level:
            first, second = functional.avg_pool2d(first, 2), functional.avg_pool2d(second, 2)
        maps.append(_similarity(first, second, window, data_range))
    return tuple(maps)


def ms_ssim(pyramid: Sequence[Similarity], weights: Sequence[float], window: int, mask: Tensor | None = None) -> Tensor:
    """Returns multi-scale structural similarity (Wang et al., Asilomar 2003, eq. 7).

        MS-SSIM = mean over channels of  S_M^w_M  prod_{j < M} C_j^w_j

    S_M is the mean similarity of the last level and C_j the mean contrast-structure factor of level j, both over the
    windows inside the image and clipped at 0. A negative mean makes the product and its gradient 0, so a decoder that
    starts with an inverted image at one level could not learn. Therefore, gradients are those of a small positive
    number there, while the value is as published.

    Args:
        pyramid: Result of `similarity_pyramid`.
        weights: Weights w_j of the levels.
        window: Side of the windows of the pyramid in pixels.
        mask: Pixels that count, (B, H, W) bool. Means are then taken over the windows, including those at the border,
            of which at least half of the central pixel counts at that level. None for all.

    Returns:
        Similarities (B,) in [0, 1].
    """
    levels = [level.contrast for level in pyramid[:-1]] + [pyramid[-1].whole]
    inside = slice(window // 2, -(window // 2) or None)
    if mask is None:
        means = torch.stack([level[..., inside, inside].mean(dim=(2, 3)) for level in levels])  # (M, B, C)
    else:
        means = torch.stack([mean_within(level, _halved(mask, power)) for power, level in enumerate(levels)])
    powers = torch.tensor(weights, dtype=means.dtype, device=means.device).view(-1, 1, 1)
    value = (means.relu() ** powers).prod(dim=0).detach()
    small = MIN_MEAN * torch.exp(means.clamp(max=MIN_MEAN) / MIN_MEAN - 1)  # tangent to the identity at MIN_MEAN
    passing = (torch.where(means > MIN_MEAN, means, small) ** powers).prod(dim=0)
    return (value + (passing - passing.detach())).mean(dim=1)


def mean_within(values: Tensor, mask: Tensor) -> Tensor:
    """Averages values (B, H, W) or (B, C, H, W) over the pixels of a mask (B, H, W); 0 if the mask is empty."""
    kept = mask if values.ndim == mask.ndim else mask[:, None]
    return torch.where(kept, values, 0).sum(dim=(-2, -1)) / kept.sum(dim=(-2, -1)).clamp(min=1)


def _halved(mask: Tensor, times: int) -> Tensor:
    """Downsamples a mask by 2 ** times: True where at least half of the pixels count, or if nowhere, where any do."""
    share = functional.avg_pool2d(mask.float()[:, None], 2**times)[:, 0]
    most = share >= 0.5
    none = ~most.any(dim=2, keepdim=True).any(dim=1, keepdim=True)
    return most | (none & (share > 0))


def dissimilarity_map(pyramid: Sequence[Similarity], weights: Sequence[float]) -> Tensor:
    """Returns the weighted sum over levels of 1 - SSIM, resized to the first level: (B, H, W), mean over channels."""
    size = pyramid[0].whole.shape[-2:]
    maps = [1 - level.whole.mean(dim=1, keepdim=True) for level in pyramid]
    resized = [resample(one, pooled(2**level), IMAGE, size) for level, one in enumerate(maps)]
    return torch.stack([weight * one[:, 0] for weight, one in zip(weights, resized, strict=True)]).sum(dim=0)


def _similarity(first: Tensor, second: Tensor, window: int, data_range: float) -> Similarity:
    rows, columns = (_blur_matrix(side, window, first.dtype, first.device) for side in first.shape[-2:])
    stack = torch.stack([first, second, first * first, second * second, first * second])
    mean1, mean2, square1, square2, product = rows @ stack @ columns.T  # much faster than convolutions on CPUs
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    contrast = (2 * (product - mean1 * mean2) + c2) / (square1 - mean1**2 + square2 - mean2**2 + c2)
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    contrast, luminance = contrast.clamp(max=1), luminance.clamp(max=1)  # rounding may exceed 1 in flat regions
    return Similarity(luminance * contrast, contrast)


@lru_cache(maxsize=64)
def _blur_matrix(side: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns (side, side): one row per position, with the weights of the window around it."""
    with torch.inference_mode(False):  # the cached matrix must also be usable in training
        distance = torch.arange(side).view(-1, 1) - torch.arange(side)
        weights = torch.exp(-(distance**2) / (2 * 1.5**2)) * (distance.abs() <= window // 2)
        return (weights / weights.sum(dim=1, keepdim=True)).to(device, dtype)
