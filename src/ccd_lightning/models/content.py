"""Tells content from padding: which positions and pixels of a working image belong to the original image.

A content box is (top, left, bottom, right) in whole pixels of the working image. Everything outside of it is padding
and does not affect whether the image is normal. A box is empty if bottom <= top or right <= left. Throughout the
models, `None` instead of boxes or masks means that everything is content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ccd_lightning.grids import IMAGE, Grid, Grids, resample


class Counted(NamedTuple):
    """Positions and pixels that count in the scores and maps of images; None for all.

    Attributes:
        positions: Mask of the positions, (B, h, w) bool.
        pixels: Mask of the pixels, (B, H, W) bool.
    """

    positions: Tensor | None = None
    pixels: Tensor | None = None


ALL = Counted()


def counted(
    content: Tensor | None, known: Tensor | None, grid: Grids, size: Sequence[int], image: Sequence[int]
) -> Counted:
    """Returns what counts: content at positions at which the detector has seen normal images.

    Args:
        content: Content boxes, (B, 4) int64; None if everything is content.
        known: Positions at which the detector has seen normal images, (h, w) bool; None for all.
        grid: Grid of the positions in the image.
        size: Number of rows and columns of positions (h, w).
        image: Height and width (H, W) of the working images in pixels.
    """
    if content is None and known is None:
        return ALL
    positions = None if content is None else content_mask(content, grid, size, image)
    pixels = None if content is None else pixels_within(content, image)
    if known is None:
        return Counted(positions, pixels)
    nearby = resample(known[None].float(), grid, IMAGE, image) >= 0.5  # (1, H, W)
    return Counted(both(positions, known[None]), both(pixels, nearby))


def content_mask(content: Tensor, grid: Grids, size: Sequence[int], image: Sequence[int]) -> Tensor:
    """Returns which units of a feature map are content: those with centres inside the box.

    If a non-empty box contains no centre along an axis, the unit nearest to the middle of the box is content. So thin
    images have features too.

    Args:
        content: Content boxes, (B, 4) int64.
        grid: Grid of the units in the image.
        size: Height and width (h, w) of the feature map.
        image: Height and width (H, W) of the working images in pixels.

    Returns:
        Mask (B, h, w) bool.
    """
    rows, columns = (grid, grid) if isinstance(grid, Grid) else grid
    top, left, bottom, right = content.unbind(dim=1)
    down = _along(top, bottom, rows, size[0], image[0])
    across = _along(left, right, columns, size[1], image[1])
    return down[:, :, None] & across[:, None, :]


def pixels_within(content: Tensor, size: Sequence[int]) -> Tensor:
    """Returns which pixels of images of size (H, W) are content, (B, H, W) bool."""
    return content_mask(content, IMAGE, size, size)


def whole(count: int, size: Sequence[int], device: torch.device) -> Tensor:
    """Returns the boxes (B, 4) of images without padding."""
    return torch.tensor([[0, 0, size[0], size[1]]], device=device).expand(count, -1)


def unless_whole(content: Tensor | None, size: Sequence[int]) -> Tensor | None:
    """Returns None if every box covers its whole image, so that no masking is needed; otherwise the boxes.

    During an export the boxes are always kept, because a traced graph cannot depend on their values.
    """
    if content is None or torch.compiler.is_exporting():
        return content
    if bool((content == whole(len(content), size, content.device)).all()):
        return None
    return content


def mirrored_boxes(content: Tensor, width: int) -> Tensor:
    """Returns the content boxes (B, 4) of images of a given width in pixels after a horizontal flip."""
    top, left, bottom, right = content.unbind(dim=1)
    return torch.stack([top, width - right, bottom, width - left], dim=1)


def _along(start: Tensor, stop: Tensor, grid: Grid, length: int, pixels: int) -> Tensor:
    """Returns which units of an axis lie between `start` and `stop` (both (B,), in pixels), as (B, length) bool."""
    units = torch.arange(length, device=start.device, dtype=torch.float32)
    # The centre of a kernel may lie beyond the border; it then counts as the border pixel.
    centres = (grid.offset + grid.stride * units).clamp(0, pixels - 1)
    start, stop = start[:, None], stop[:, None]
    inside = (centres >= start - 0.5) & (centres < stop - 0.5)
    nearest = (centres - (start + stop - 1) / 2).abs().argmin(dim=1, keepdim=True)
    fallback = (units == nearest) & (stop > start)
    return inside | (fallback & ~inside.any(dim=1, keepdim=True))


def masked_mean(features: Tensor, mask: Tensor | None) -> Tensor:
    """Averages features over the content of each image.

    Args:
        features: Features, (B, D, h, w).
        mask: Positions that are content, (B, h, w) bool; None for all.

    Returns:
        Means (B, D); 0 for an image without content.
    """
    if mask is None:
        return features.mean(dim=(2, 3))
    total = torch.where(mask[:, None], features, 0).sum(dim=(2, 3))
    return total / mask.sum(dim=(1, 2)).clamp(min=1)[:, None]


def both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Returns the logical and of two masks, where None means all; None if both are None."""
    if first is None or second is None:
        return second if first is None else first
    return first & second
