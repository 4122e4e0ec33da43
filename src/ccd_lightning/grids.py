"""Where the values of a map belong in the image.

Coordinates are those of pixel centres: pixel x lies at x. A convolution of stride s that pads half of its kernel, as
all of ResNet's do, centres its unit k on pixel s k; a cell of s x s pixels that are pooled is centred on
s k + (s - 1) / 2. Whoever brings a map to another resolution says which of these it is, and `resample` does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """Where a map's units look: unit k is centred on pixel `offset + stride k`, along both axes.

    Attributes:
        stride: Pixels from one unit to the next, > 0.
        offset: Pixel that the first unit is centred on.
    """

    stride: float
    offset: float = 0.0


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
    sources, targets = ((grid, grid) if isinstance(grid, Grid) else grid for grid in (source, target))
    for axis, own, wanted, length in zip((-2, -1), sources, targets, size, strict=True):
        maps = _along(maps, axis, own, wanted, length)
    return maps


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


def _along(maps: Tensor, axis: int, source: Grid, target: Grid, length: int) -> Tensor:
    units = maps.shape[axis]
    if source == target and units == length:
        return maps
    pixels = target.offset + target.stride * torch.arange(length, dtype=torch.float64)
    places = ((pixels - source.offset) / source.stride).clamp(0, units - 1)  # (length,), in units of the source
    below = places.long().clamp(max=max(units - 2, 0))
    share = (places - below).to(maps.dtype).to(maps.device).view(-1, *(1,) * (-1 - axis))
    below = below.to(maps.device)
    above = (below + 1).clamp(max=units - 1)
    return torch.lerp(maps.index_select(axis, below), maps.index_select(axis, above), share)
