"""Which positions and pixels of a working image show the image itself, and not the margin that it was fitted into.

A content box is (top, left, bottom, right) in whole pixels of the working image; what lies outside of it was added, and
says nothing of whether the image is normal. A box whose bottom is not below its top, or whose right is not right of its
left, holds nothing. Everywhere in the models, `None` in the place of boxes or masks means that all is content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ccd_lightning.grids import IMAGE, Grid, Grids, resample


class Counted(NamedTuple):
    """What takes part in an image's score and map; None for all.

    Attributes:
        positions: (B, h, w) bool.
        pixels: (B, H, W) bool.
    """

    positions: Tensor | None = None
    pixels: Tensor | None = None


ALL = Counted()


def counted(
    content: Tensor | None, known: Tensor | None, grid: Grids, size: Sequence[int], image: Sequence[int]
) -> Counted:
    """What takes part: content at positions that normal images have shown.

    Args:
        content: Boxes, (B, 4) int64; None where all is content.
        known: Positions that a detector knows normal images of, (h, w) bool; None for all.
        grid: Where the positions are.
        size: Their numbers h, w.
        image: Height and width H, W of the working images, in pixels.
    """
    if content is None and known is None:
        return ALL
    positions = None if content is None else within(content, grid, size, image)
    pixels = None if content is None else pixels_within(content, image)
    if known is None:
        return Counted(positions, pixels)
    nearby = resample(known[None].float(), grid, IMAGE, image) >= 0.5  # (1, H, W)
    return Counted(both(positions, known[None]), both(pixels, nearby))


def within(content: Tensor, grid: Grids, size: Sequence[int], image: Sequence[int]) -> Tensor:
    """Which units of a map are content: those whose centres lie in the box.

    Along an axis where a box that is not empty holds no centre, the unit that is nearest to its middle is content, so
    that a thin image has features too.

    Args:
        content: Boxes, (B, 4) int64.
        grid: Where the units are.
        size: Height and width h, w of the map.
        image: Height and width H, W of the working images, in pixels.

    Returns:
        (B, h, w) bool.
    """
    rows, columns = (grid, grid) if isinstance(grid, Grid) else grid
    top, left, bottom, right = content.unbind(dim=1)
    down = _along(top, bottom, rows, size[0], image[0])
    across = _along(left, right, columns, size[1], image[1])
    return down[:, :, None] & across[:, None, :]


def pixels_within(content: Tensor, size: Sequence[int]) -> Tensor:
    """Which pixels (B, H, W) bool of images of size H, W are content."""
    return within(content, IMAGE, size, size)


def whole(count: int, size: Sequence[int], device: torch.device) -> Tensor:
    """Boxes (B, 4) of images that are content all over."""
    return torch.tensor([[0, 0, size[0], size[1]]], device=device).expand(count, -1)


def unless_whole(content: Tensor | None, size: Sequence[int]) -> Tensor | None:
    """The same boxes, or None if all of them are those of whole images: then nothing has to be left out.

    A graph that is exported keeps the boxes, as it cannot tell.
    """
    if content is None or torch.compiler.is_exporting():
        return content
    if bool((content == whole(len(content), size, content.device)).all()):
        return None
    return content


def mirrored_boxes(content: Tensor, width: int) -> Tensor:
    """Boxes (B, 4) of images of a width in pixels that are mirrored from left to right."""
    top, left, bottom, right = content.unbind(dim=1)
    return torch.stack([top, width - right, bottom, width - left], dim=1)


def _along(start: Tensor, stop: Tensor, grid: Grid, length: int, pixels: int) -> Tensor:
    """Which units of an axis lie between `start` and `stop`, (B,) each in pixels: (B, length) bool."""
    units = torch.arange(length, device=start.device, dtype=torch.float32)
    # Kernels may look past the border, and what they see there is the image's border.
    centres = (grid.offset + grid.stride * units).clamp(0, pixels - 1)
    start, stop = start[:, None], stop[:, None]
    inside = (centres >= start - 0.5) & (centres < stop - 0.5)
    nearest = (centres - (start + stop - 1) / 2).abs().argmin(dim=1, keepdim=True)
    fallback = (units == nearest) & (stop > start)
    return inside | (fallback & ~inside.any(dim=1, keepdim=True))


def masked_mean(features: Tensor, mask: Tensor | None) -> Tensor:
    """Means over the content of each image.

    Args:
        features: (B, D, h, w).
        mask: What is content, (B, h, w) bool; None for all.

    Returns:
        (B, D); 0 for an image without content.
    """
    if mask is None:
        return features.mean(dim=(2, 3))
    total = torch.where(mask[:, None], features, 0).sum(dim=(2, 3))
    return total / mask.sum(dim=(1, 2)).clamp(min=1)[:, None]


def both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Where both masks hold; None where both are None."""
    if first is None or second is None:
        return second if first is None else first
    return first & second
