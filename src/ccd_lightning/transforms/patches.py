"""Square patches of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

# (row, column) offsets of the eight neighbouring cells, in reading order. The class of a pair is its index here.
CELLS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def position_pairs(
    images: Tensor, size: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws two neighbouring patches of every image, and the position of the second relative to the first.

    Along each axis in which its cell differs, the second patch is offset by 3/4 of the side plus a jitter in [0, 1/4)
    of the side (CCD, Tian et al., MICCAI 2021; Doersch et al., ICCV 2015). The first patch is drawn such that the
    second fits into the image. So positions are never clipped, and labels are always correct.

    Args:
        images: Images, (B, C, H, W).
        size: Side of the patches in pixels, at most half of the shorter side of the image.
        generator: Random generator on the CPU.

    Returns:
        First and second patches, (B, C, size, size) each, and positions (B,) in 0..7 on the images' device.

    Raises:
        ValueError: If two patches do not fit.
    """
    count, _, height, width = images.shape
    if 2 * size > min(height, width):
        raise ValueError(f"two patches (data.views.patch_size is {size}) do not fit into {height} x {width} px")
    position = torch.randint(len(CELLS), (count,), generator=generator)
    jitter = torch.randint(max(size // 4, 1), (count, 2), generator=generator)
    offset = torch.tensor(CELLS)[position] * (size * 3 // 4 + jitter)  # (B, 2): rows and columns
    room = torch.tensor([height, width]) - size - offset.abs()  # (B, 2): room for the upper left corner of the pair
    corner = (torch.rand(count, 2, generator=generator) * (room + 1)).long()
    first = corner + (-offset).clamp(min=0)
    return cut(images, first.tolist(), size), cut(images, (first + offset).tolist(), size), position.to(images.device)


def draw_tile(height: int, width: int, side: int, generator: torch.Generator | None = None) -> tuple[int, int]:
    """Draws one of the non-overlapping tiles of an image.

    Args:
        height: Height of the image in pixels, a multiple of the side.
        width: Width of the image in pixels, a multiple of the side.
        side: Side of a tile in pixels.
        generator: Random generator on the CPU.

    Returns:
        Row and column of the tile's upper left pixel.

    Raises:
        ValueError: If height or width is not a multiple of the side.
    """
    if side < 1 or height % side or width % side:
        raise ValueError(f"{height} x {width} px do not divide into tiles (data.views.tile is {side})")
    columns = width // side
    row, column = divmod(int(torch.randint(height // side * columns, (), generator=generator)), columns)
    return row * side, column * side


def tiles(images: Tensor, side: int) -> Tensor:
    """Splits images into non-overlapping square tiles.

    Args:
        images: Images, (B, C, H, W), with H and W multiples of the side.
        side: Side of a tile in pixels.

    Returns:
        Tiles (B T, C, side, side): the T tiles of the first image in reading order, then those of the second, and so
        on.
    """
    return windows(images, side, side).flatten(0, 2)


def windows(images: Tensor, side: int, stride: int) -> Tensor:
    """Returns square windows of images on a regular grid.

    Args:
        images: Images, (B, C, H, W).
        side: Side of a window in pixels.
        stride: Distance between neighbouring windows in pixels.

    Returns:
        Windows (B, rows, columns, C, side, side), as a view of the images without a copy.
    """
    return images.unfold(2, side, stride).unfold(3, side, stride).permute(0, 2, 3, 1, 4, 5)


def fold_windows(maps: Tensor, stride: int) -> Tensor:
    """Merges maps of windows, as returned by `windows`, into maps of images; overlapping values are summed.

    Args:
        maps: Maps of the windows, (B, rows, columns, side, side).
        stride: Distance between neighbouring windows in pixels.

    Returns:
        Maps (B, (rows - 1) stride + side, (columns - 1) stride + side).
    """
    _, rows, columns, side, _ = maps.shape
    stacked = maps.flatten(3).permute(0, 3, 1, 2).flatten(2)  # (B, side * side, windows)
    size = ((rows - 1) * stride + side, (columns - 1) * stride + side)
    return functional.fold(stacked, size, side, stride=stride)[:, 0]


def coverage(length: int, side: int, stride: int) -> Tensor:
    """Returns the number of windows that cover each pixel of an axis, (length,)."""
    within = torch.zeros(length)
    for start in range(0, length - side + 1, stride):
        within[start : start + side] += 1
    return within


def cut(images: Tensor, corners: Iterable[Sequence[int]], size: int) -> Tensor:
    """Cuts a square out of every image.

    Args:
        images: Images, (B, C, H, W).
        corners: Row and column of the upper left pixel for each of the B images, on the host, which avoids
            synchronisation with the device.
        size: Side of the squares in pixels.

    Returns:
        Squares (B, C, size, size).
    """
    pairs = zip(images, corners, strict=True)
    return torch.stack([image[:, row : row + size, column : column + size] for image, (row, column) in pairs])
