"""How IGD's local scale takes images apart into windows and puts them together again."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ccd_lightning.models.encoder import Encoder
from ccd_lightning.modules.igd_scale import Descriptor, WindowScale
from ccd_lightning.transforms.patches import coverage, fold_windows, windows


def draw_windows(images: Tensor, scale: WindowScale, rng: np.random.Generator, total: int, own: Tensor) -> Tensor:
    """Windows to train on, drawn among those that are scored.

    Args:
        images: (B, C, H, W).
        scale: Sizes, and how many windows to draw of each image.
        rng: Source of all randomness, the same on every rank.
        total: Images in the batch of all ranks.
        own: Places of these images in it, (B,).

    Returns:
        (B drawn, C, size, size): those of the first image, then those of the second, and so on.
    """
    grid = windows(images, scale.size, scale.stride)  # (B, rows, columns, C, size, size)
    rows, columns = grid.shape[1:3]
    place = torch.from_numpy(rng.integers(rows * columns, size=(total, scale.drawn))).to(images.device)[own]
    image = torch.arange(len(images), device=images.device)[:, None]
    return grid[image, place // columns, place % columns].flatten(0, 1)


def score_windows(
    descriptor: Descriptor, encoder: Encoder, images: Tensor, scale: WindowScale
) -> tuple[Tensor, Tensor]:
    """The highest of the windows' scores (B,), and their maps (B, H, W) averaged where they overlap.

    Args:
        descriptor: Scores the windows.
        encoder: Its encoder.
        images: (B, 3, H, W) in [0, 1].
        scale: Sizes, and how many windows to score at once. An exported graph scores all at once: of a batch whose
            size is open it cannot tell how many chunks there are. Row by row it would hold the model once for each row
            of the grid: at 256 px 2.4 GB instead of 0.9 for one image, and 20 times as long to export.
    """
    grid = windows(images, scale.size, scale.stride)  # (B, rows, columns, C, size, size)
    at_once = max(1, scale.chunk // (grid.shape[1] * grid.shape[2]))
    chunks = [grid] if torch.compiler.is_exporting() else torch.split(grid, at_once)
    parts = [_score_grid(descriptor, encoder, chunk, scale) for chunk in chunks]
    scores, maps = (torch.cat(part) for part in zip(*parts, strict=True))
    return scores, maps / _times(images, scale)


def _score_grid(descriptor: Descriptor, encoder: Encoder, grid: Tensor, scale: WindowScale) -> tuple[Tensor, Tensor]:
    """Scores (B,) and sums of maps (B, H, W) of windows (B, rows, columns, C, size, size), some rows at once."""
    (count, rows, columns), stride = grid.shape[:3], scale.stride
    maps = grid.new_zeros(count, (rows - 1) * stride + scale.size, (columns - 1) * stride + scale.size)
    at_once = rows if torch.compiler.is_exporting() else max(1, scale.chunk // (count * columns))
    highest = []
    for top, block in zip(range(0, rows, at_once), torch.split(grid, at_once, dim=1), strict=True):
        scores, parts = descriptor.score(encoder, block.flatten(0, 2))
        highest.append(scores.view(count, -1).amax(dim=1))
        strip = fold_windows(parts.view(*block.shape[:3], *parts.shape[1:]), stride)
        maps[:, top * stride : top * stride + strip.shape[1]] += strip
    return torch.stack(highest).amax(dim=0), maps


def reconstruct_windows(descriptor: Descriptor, encoder: Encoder, images: Tensor, scale: WindowScale) -> Tensor:
    """What the decoder makes of the windows of images (B, 3, H, W) in [0, 1], averaged where they overlap: as many."""
    grid = windows(images, scale.size, scale.stride)
    parts = torch.split(grid.flatten(0, 2), scale.chunk)
    made = torch.cat([descriptor.reconstruct(encoder, part) for part in parts]).view(grid.shape)
    whole = fold_windows(made.movedim(3, 1).flatten(0, 1), scale.stride)  # a channel is as good as an image
    return whole.view_as(images) / _times(images, scale)


def _times(images: Tensor, scale: WindowScale) -> Tensor:
    """How many windows each pixel lies in, (H, W)."""
    down, across = (coverage(length, scale.size, scale.stride).to(images) for length in images.shape[-2:])
    return down[:, None] * across
