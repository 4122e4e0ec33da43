"""IGD's local scale, which splits images into windows and merges the results."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ccd_lightning.grids import Grid
from ccd_lightning.models.content import content_mask, pixels_within
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.igd.descriptor import Descriptor
from ccd_lightning.models.igd.settings import WindowScale
from ccd_lightning.transforms.patches import coverage, fold_windows, windows


class WindowDescriptor(Descriptor):
    """A descriptor of windows; the score of an image is that of its most abnormal window.

    Args:
        scale: Settings of the scale.
        features_size: Length F of the encoder's feature vectors.
        latent_size: Number D of latents.
        name: Name of the option that sets the scale, used in error messages.
        whitened: Whether latents are principal components, computed before training, instead of learned.
    """

    settings: WindowScale

    @property
    def views_per_image(self) -> int:
        """Number of windows of an image in a training step."""
        return self.settings.windows_per_image

    def training_views(
        self, images: Tensor, rng: np.random.Generator, total: int, own: Tensor, content: Tensor | None = None
    ) -> Tensor:
        """Draws V windows of each image from those that are scored: (B V, C, size, size), ordered by image."""
        grid = self._windows(images)
        rows, columns = grid.shape[1:3]
        chosen = rng.integers(rows * columns, size=(total, self.views_per_image))
        index = torch.from_numpy(chosen).to(images.device)[own]
        if (shown := self._shown(images, content)) is not None:  # only windows with content, in order
            order = (~shown.flatten(1)).to(torch.uint8).argsort(dim=1, stable=True)
            index = order.gather(1, index % shown.sum(dim=(1, 2))[:, None])
        image = torch.arange(len(images), device=images.device)[:, None]
        return grid[image, index // columns, index % columns].flatten(0, 1)

    def estimation_views(self, images: Tensor, content: Tensor | None = None) -> Tensor:
        """Returns all windows of images (B, C, H, W) that are scored, (N, C, size, size).

        Non-overlapping tiles would be fewer. But with a Gaussian estimated from tiles, a window across two of them can
        look abnormal.
        """
        shown = self._shown(images, content)
        return self._windows(images).flatten(0, 2) if shown is None else self._windows(images)[shown]

    def score(self, encoder: Encoder, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the highest score of the windows (B,), and their maps (B, H, W), averaged where windows overlap.

        Windows whose centre is not content get no score. Windows across the border of the content include padding.

        At most `chunk_size` windows, or one row, are scored at once. An exported graph scores all windows at once: with
        a dynamic batch size the number of chunks is unknown, and row by row the graph would contain the model once per
        row of the grid: at 256 px 2.4 GB instead of 0.9 GB for one image, and an export that takes 20 times as long.
        """
        grid = self._windows(images)
        at_once = max(1, self.settings.chunk_size // (grid.shape[1] * grid.shape[2]))
        chunks = [grid] if torch.compiler.is_exporting() else torch.split(grid, at_once)
        found, maps = (torch.cat(part) for part in zip(*(self._score(encoder, some) for some in chunks), strict=True))
        maps, shown = maps / self._times(images), self._shown(images, content)
        if content is None or shown is None:
            return found.amax(dim=(1, 2)), maps
        maps = torch.where(pixels_within(content, images.shape[-2:]), maps, 0)
        return torch.where(shown, found, 0).amax(dim=(1, 2)), maps

    def _shown(self, images: Tensor, content: Tensor | None) -> Tensor | None:
        """Returns which windows have content at their centre, (B, rows, columns) bool; None for all."""
        if content is None:
            return None
        size, stride = self.settings.size, self.settings.stride
        counts = [(length - size) // stride + 1 for length in images.shape[-2:]]
        return content_mask(content, Grid(stride, (size - 1) / 2), counts, images.shape[-2:])

    def _score(self, encoder: Encoder, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Scores windows (B, rows, columns, C, size, size), a few rows at a time.

        Returns:
            Scores (B, rows, columns), and the sums of the windows' maps (B, H, W).
        """
        (count, rows, columns), size, stride = grid.shape[:3], self.settings.size, self.settings.stride
        maps = grid.new_zeros(count, (rows - 1) * stride + size, (columns - 1) * stride + size)
        at_once = rows if torch.compiler.is_exporting() else max(1, self.settings.chunk_size // (count * columns))
        found = []
        for top, block in zip(range(0, rows, at_once), torch.split(grid, at_once, dim=1), strict=True):
            scores, parts = super().score(encoder, block.flatten(0, 2))
            found.append(scores.view(block.shape[:3]))
            strip = fold_windows(parts.view(*block.shape[:3], *parts.shape[1:]), stride)
            maps[:, top * stride : top * stride + strip.shape[1]] += strip
        return torch.cat(found, dim=1), maps

    def reconstruct(self, encoder: Encoder, images: Tensor) -> Tensor:
        """Reconstructs images (B, 3, H, W) window by window; overlapping reconstructions are averaged."""
        grid = self._windows(images)
        reconstruct, parts = super().reconstruct, torch.split(grid.flatten(0, 2), self.settings.chunk_size)
        made = torch.cat([reconstruct(encoder, part) for part in parts]).view(grid.shape)
        whole = fold_windows(made.movedim(3, 1).flatten(0, 1), self.settings.stride)  # channels are folded like images
        return whole.view_as(images) / self._times(images)

    def _windows(self, images: Tensor) -> Tensor:
        """Splits images into windows (B, rows, columns, C, size, size)."""
        return windows(images, self.settings.size, self.settings.stride)

    def _times(self, images: Tensor) -> Tensor:
        """Returns the number of windows that cover each pixel, (H, W)."""
        size, stride = self.settings.size, self.settings.stride
        down, across = (coverage(length, size, stride).to(images) for length in images.shape[-2:])
        return down[:, None] * across
