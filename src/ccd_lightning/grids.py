"""Positions of the values of a feature map in the image, and resampling between such grids.

Coordinates refer to pixel centres: pixel x is at x. A convolution of stride s with half-kernel padding, as in ResNets,
centres its unit k on pixel s k. A pooled cell of s x s pixels is centred on s k + (s - 1) / 2. Callers of `resample`
pass the matching grid.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Grid(NamedTuple):
    """Grid of a map's units in the image: unit k is centred on pixel `offset + stride k`, along both axes.

    Attributes:
        stride: Distance between neighbouring units in pixels, > 0.
        offset: Pixel on which the first unit is centred.
    """

    stride: float
    offset: float = 0.0


Matrix = NDArray[np.float64]
IMAGE = Grid(1)
Grids = Grid | tuple[Grid, Grid]  # the same grid for both axes, or one for rows and one for columns


def pooled(factor: int) -> Grid:
    """Returns the grid of a map whose units are cells of `factor` x `factor` pixels."""
    return Grid(factor, (factor - 1) / 2)


def rescaled(grid: Grid, scale: float) -> Grid:
    """Returns the grid for an image whose sides are scaled by `scale`."""
    return Grid(grid.stride * scale, (grid.offset + 0.5) * scale - 0.5)


def resample(maps: Tensor, source: Grids, target: Grids, size: Sequence[int]) -> Tensor:
    """Resamples maps to another grid, by linear interpolation between the nearest units along each axis.

    Beyond the outermost units, their values are repeated.

    Args:
        maps: Maps, (..., h, w).
        source: Grid of the maps.
        target: Grid of the result.
        size: Height and width (H, W) of the result, in units of `target`.

    Returns:
        Resampled maps, (..., H, W).
    """
    return multiplied(maps, interpolations(maps.shape[-2:], source, target, size))


def interpolations(
    units: Sequence[int], source: Grids, target: Grids, size: Sequence[int]
) -> tuple[Matrix | None, Matrix | None]:
    """Returns the matrices of `resample` for maps with `units` rows and columns; None for an axis that is unchanged."""
    sources, targets = ((grid, grid) if isinstance(grid, Grid) else grid for grid in (source, target))
    down, across = (
        None if own == wanted and count == length else interpolation(count, own, wanted, length)
        for count, own, wanted, length in zip(units, sources, targets, size, strict=True)
    )
    return down, across


def are_channels_last(maps: Tensor) -> bool:
    """Returns whether maps (B, C, h, w) have the channels-last memory format; always False during an export."""
    if torch.compiler.is_exporting() or maps.ndim != 4:  # in an export, the check would fix the batch size
        return False
    return maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()


def _multiplied_channels_last(maps: Tensor, down: Tensor | None, across: Tensor | None) -> Tensor:
    """Computes `multiplied` for maps (B, C, h, w) in channels-last memory format, which the result has too."""
    inner = maps.permute(0, 2, 3, 1)  # (B, h, w, C)
    if down is not None:
        inner = (down @ inner.flatten(2)).view(len(inner), -1, *inner.shape[2:])
    return (inner if across is None else across @ inner).permute(0, 3, 1, 2)


def cut_boxes(maps: Tensor, boxes: Tensor | None) -> Iterator[Tensor]:
    """Yields the part (h, w) of each map inside its box.

    Args:
        maps: Maps of any dtype, (B, H, W).
        boxes: Top, left, bottom and right in whole pixels, (B, 4); None yields the whole maps.
    """
    if boxes is None:
        yield from maps
        return
    for own, (top, left, bottom, right) in zip(maps, boxes.tolist(), strict=True):
        yield own[top:bottom, left:right]


@functools.lru_cache(maxsize=256)
def interpolation(units: int, source: Grid, target: Grid, length: int) -> Matrix:
    """Returns the matrix by which `resample` multiplies an axis of `units` units: (length, units), rows sum to 1."""
    positions = (target.offset + target.stride * np.arange(length) - source.offset) / source.stride
    positions = positions.clip(0, units - 1)  # in units of the source
    below = positions.astype(np.int64).clip(max=max(units - 2, 0))
    matrix, rows, share = np.zeros((length, units)), np.arange(length), positions - below
    matrix[rows, below] = 1 - share
    matrix[rows, (below + 1).clip(max=units - 1)] += share
    return matrix


def multiplied(maps: Tensor, matrices: tuple[Matrix | None, Matrix | None]) -> Tensor:
    """Multiplies the columns of maps by one matrix and their rows by another.

    Matrix products are faster here than gathering neighbours or convolutions.

    Args:
        maps: Maps, (..., h, w).
        matrices: Matrices (H, h) and (W, w); None leaves an axis unchanged.

    Returns:
        Maps (..., H, W).
    """
    down, across = (None if one is None else torch.as_tensor(one).to(maps.dtype).to(maps.device) for one in matrices)
    if are_channels_last(maps):
        return _multiplied_channels_last(maps, down, across)
    if down is not None:
        maps = (maps.transpose(-2, -1) @ down.T).transpose(-2, -1)
    return maps if across is None else maps @ across.T
