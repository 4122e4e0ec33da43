"""IGD's local scale, which takes images apart into windows and puts them together again."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ccd_lightning.grids import Grid
from ccd_lightning.models.content import pixels_within, within
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.models.igd.descriptor import Descriptor
from ccd_lightning.models.igd.settings import WindowScale
from ccd_lightning.transforms.patches import coverage, fold_windows, windows


class WindowDescriptor(Descriptor):
    """A descriptor of windows, which scores an image by the least normal one.

    Args:
        scale: Sizes and weights.
        features_size: F, of the encoder's features.
        latent_size: D.
        name: Of the option that sets the scale, for messages.
        whitened: Whether latents are principal components, found before training, instead of learned.
    """

    settings: WindowScale

    @property
    def views_per_image(self) -> int:
        """How many windows of an image a training step sees."""
        return self.settings.windows_per_image

    def training_views(
        self, images: Tensor, rng: np.random.Generator, total: int, own: Tensor, content: Tensor | None = None
    ) -> Tensor:
        """Windows drawn among those that are scored: (B V, C, size, size), those of the first image first."""
        grid = self._windows(images)
        rows, columns = grid.shape[1:3]
        chosen = rng.integers(rows * columns, size=(total, self.views_per_image))
        place = torch.from_numpy(chosen).to(images.device)[own]
        if (shown := self._shown(images, content)) is not None:  # those of content alone, in their order
            order = (~shown.flatten(1)).to(torch.uint8).argsort(dim=1, stable=True)
            place = order.gather(1, place % shown.sum(dim=(1, 2))[:, None])
        image = torch.arange(len(images), device=images.device)[:, None]
        return grid[image, place // columns, place % columns].flatten(0, 1)

    def estimation_views(self, images: Tensor, content: Tensor | None = None) -> Tensor:
        """All windows of images (B, C, H, W) that are scored, (N, C, size, size).

        Tiles would do with fewer, but to their Gaussian a window that lies across two of them can look abnormal.
        """
        shown = self._shown(images, content)
        return self._windows(images).flatten(0, 2) if shown is None else self._windows(images)[shown]

    def score(self, encoder: Encoder, images: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The highest of the windows' scores (B,), and their maps (B, H, W) averaged where they overlap.

        Windows whose middle is no content have no score. Those across its border see the margin, as the encoder does.

        No more than `chunk_size` windows, or a row, are scored at once, but for an exported graph: of a batch whose
        size is open it cannot tell how many chunks there are. Row by row it would hold the model once for each row of
        the grid: at 256 px 2.4 GB instead of 0.9 for one image, and 20 times as long to export.
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
        """Which windows have content in their middle, (B, rows, columns) bool; None for all."""
        if content is None:
            return None
        size, stride = self.settings.size, self.settings.stride
        counts = [(length - size) // stride + 1 for length in images.shape[-2:]]
        return within(content, Grid(stride, (size - 1) / 2), counts, images.shape[-2:])

    def _score(self, encoder: Encoder, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, rows, columns) and sums of maps (B, H, W) of windows (B, rows, columns, C, size, size).

        Some rows are scored at once.
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
        """What the decoder makes of the windows of images (B, 3, H, W), averaged where they overlap: as many."""
        grid = self._windows(images)
        reconstruct, parts = super().reconstruct, torch.split(grid.flatten(0, 2), self.settings.chunk_size)
        made = torch.cat([reconstruct(encoder, part) for part in parts]).view(grid.shape)
        whole = fold_windows(made.movedim(3, 1).flatten(0, 1), self.settings.stride)  # a channel is as good as an image
        return whole.view_as(images) / self._times(images)

    def _windows(self, images: Tensor) -> Tensor:
        """(B, rows, columns, C, size, size)."""
        return windows(images, self.settings.size, self.settings.stride)

    def _times(self, images: Tensor) -> Tensor:
        """How many windows each pixel lies in, (H, W)."""
        size, stride = self.settings.size, self.settings.stride
        down, across = (coverage(length, size, stride).to(images) for length in images.shape[-2:])
        return down[:, None] * across
