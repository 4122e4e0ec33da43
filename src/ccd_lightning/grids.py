"""Where the values of a map belong in the image.

Coordinates are those of pixel centres: pixel x lies at x. A convolution of stride s that pads half of its kernel, as
all of ResNet's do, centres its unit k on pixel s k; a cell of s x s pixels that are pooled is centred on
s k + (s - 1) / 2. Whoever brings a map to another resolution says which of these it is, and `resample` does the rest.
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
    """Where a map's units look: unit k is centred on pixel `offset + stride k`, along both axes.

    Attributes:
        stride: Pixels from one unit to the next, > 0.
        offset: Pixel that the first unit is centred on.
    """

    stride: float
    offset: float = 0.0


Matrix = NDArray[np.float64]
IMAGE = Grid(1)
Grids = Grid | tuple[Grid, Grid]  # along both axes, or along rows and along columns


def pooled(factor: int) -> Grid:
    """The grid of a map whose units each stand for a cell of `factor` x `factor` pixels."""
    return Grid(factor, (factor - 1) / 2)


def rescaled(grid: Grid, scale: float) -> Grid:
    """The grid in another image, whose sides are `scale` times as long as those of the image that the grid is of."""
    return Grid(grid.stride * scale, (grid.offset + 0.5) * scale - 0.5)


def resample(maps: Tensor, source: Grids, target: Grids, size: Sequence[int]) -> Tensor:
    """Brings maps to another grid, by linear interpolation between the nearest units along each axis.

    Beyond the outermost units, the map has their values.

    Args:
        maps: (..., h, w).
        source: The maps' grid.
        target: The grid to bring them to.
        size: Height and width H, W of the result, in units of `target`.

    Returns:
        (..., H, W).
    """
    return multiplied(maps, interpolations(maps.shape[-2:], source, target, size))


def interpolations(
    units: Sequence[int], source: Grids, target: Grids, size: Sequence[int]
) -> tuple[Matrix | None, Matrix | None]:
    """The matrices of `resample` for maps of `units` rows and columns; None where an axis stays as it is."""
    sources, targets = ((grid, grid) if isinstance(grid, Grid) else grid for grid in (source, target))
    down, across = (
        None if own == wanted and count == length else interpolation(count, own, wanted, length)
        for count, own, wanted, length in zip(units, sources, targets, size, strict=True)
    )
    return down, across


def are_channels_last(maps: Tensor) -> bool:
    """Whether the channels of maps (B, C, h, w) lie side by side in memory; never during an export."""
    if torch.compiler.is_exporting() or maps.ndim != 4:  # where a look at the memory would fix the size of the batch
        return False
    return maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()


def _multiplied_channels_last(maps: Tensor, down: Tensor | None, across: Tensor | None) -> Tensor:
    """The same for maps (B, C, h, w) whose channels lie side by side in memory, which those of the result then do."""
    inner = maps.permute(0, 2, 3, 1)  # (B, h, w, C)
    if down is not None:
        inner = (down @ inner.flatten(2)).view(len(inner), -1, *inner.shape[2:])
    return (inner if across is None else across @ inner).permute(0, 3, 1, 2)


def cut_boxes(maps: Tensor, boxes: Tensor | None) -> Iterator[Tensor]:
    """The part (h, w) of each map (B, H, W) that lies in its box: top, left, bottom and right in pixels, (B, 4).

    Args:
        maps: Of any type.
        boxes: Whole numbers; None for all of each map.
    """
    if boxes is None:
        yield from maps
        return
    for own, (top, left, bottom, right) in zip(maps, boxes.tolist(), strict=True):
        yield own[top:bottom, left:right]


@functools.lru_cache(maxsize=256)
def interpolation(units: int, source: Grid, target: Grid, length: int) -> Matrix:
    """What `resample` multiplies an axis of `units` units with: (length, units), rows that sum up to 1."""
    places = (target.offset + target.stride * np.arange(length) - source.offset) / source.stride
    places = places.clip(0, units - 1)  # in units of the source
    below = places.astype(np.int64).clip(max=max(units - 2, 0))
    matrix, rows, share = np.zeros((length, units)), np.arange(length), places - below
    matrix[rows, below] = 1 - share
    matrix[rows, (below + 1).clip(max=units - 1)] += share
    return matrix


def multiplied(maps: Tensor, matrices: tuple[Matrix | None, Matrix | None]) -> Tensor:
    """Multiplies the columns of maps with one matrix, their rows with another.

    Products of matrices are what machines are fastest at: faster here than to gather neighbours or to convolve.

    Args:
        maps: (..., h, w).
        matrices: (H, h) and (W, w); None leaves an axis as it is.

    Returns:
        (..., H, W).
    """
    down, across = (None if one is None else torch.as_tensor(one).to(maps.dtype).to(maps.device) for one in matrices)
    if are_channels_last(maps):
        return _multiplied_channels_last(maps, down, across)
    if down is not None:
        maps = (maps.transpose(-2, -1) @ down.T).transpose(-2, -1)
    return maps if across is None else maps @ across.T
