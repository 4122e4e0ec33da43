"""Scores large images tile by tile, so that memory depends on the size of a tile and not of the image.

Tiles are square, overlap, and cover an image evenly: the first starts at the upper left corner, the last ends at the
lower right corner, and the others are equally spaced between them. Each tile is scored as a separate image. The maps
are averaged with weights that decrease towards the border of a tile and sum to 1 at each pixel, which avoids seams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ccd_lightning.data.tiles import Tiles
from ccd_lightning.errors import UserError
from ccd_lightning.models.anomaly_map import image_scores
from ccd_lightning.models.content import unless_whole

CHUNK_PIXELS = 1 << 20  # pixels that are scored at a time: 16 tiles of 256 px

Score = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Axis:
    """Positions of the tiles along one side of an image.

    Args:
        length: Length of the image's side in pixels.
        side: Side of a tile in pixels.
        overlap: Minimum overlap of neighbouring tiles in pixels, less than the side.

    Raises:
        UserError: If the image is smaller than a tile.
    """

    length: int
    side: int
    overlap: int
    starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        room = self.length - self.side
        if room < 0:
            raise UserError(f"Images of {self.length} px are smaller than a tile of {self.side} px (data.tiles).")
        count = Tiles(self.side, self.overlap).along(self.length)
        starts = [round(number * room / max(count - 1, 1)) for number in range(count)]
        object.__setattr__(self, "starts", starts)

    # Uses NumPy, because an export would record operations of torch as part of the graph.
    def weights(self) -> npt.NDArray[np.float32]:
        """Returns the weight of each tile at its pixels, (n, side); the weights of all tiles sum to 1 at each pixel."""
        pixels = np.arange(self.side)
        ramp = np.minimum(pixels + 1, self.side - pixels)  # 1 at both ends
        total = np.zeros(self.length)
        for start in self.starts:
            total[start : start + self.side] += ramp
        return np.stack([ramp / total[start : start + self.side] for start in self.starts]).astype(np.float32)

    def indices(self) -> npt.NDArray[np.int64]:
        """Returns the pixels of all tiles, tile by tile, (n side,)."""
        pixels: npt.NDArray[np.int64] = (np.array(self.starts)[:, None] + np.arange(self.side)).ravel()
        return pixels

    def gathering(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Returns for each pixel its positions in `indices`, and their weights.

        Both are (m, length), where m is the maximum number of tiles that cover a pixel. Unused entries have weight 0.
        """
        pixels, flat = self.indices(), self.weights().ravel()
        order = np.argsort(pixels, kind="stable")
        counts = np.bincount(pixels, minlength=self.length)
        rank = np.arange(len(pixels)) - np.repeat(np.cumsum(counts) - counts, counts)  # among the pixel's tiles
        positions = np.zeros((counts.max(), self.length), np.int64)
        weights = np.zeros((counts.max(), self.length), np.float32)
        positions[rank, pixels[order]], weights[rank, pixels[order]] = order, flat[order]
        return positions, weights


class Tiling:
    """Splits images of one size into tiles, and merges the scores and maps of the tiles.

    Args:
        size: Height and width (H, W) of the images in pixels.
        side: Side s of a tile in pixels.
        overlap: Minimum overlap of neighbouring tiles in pixels, less than the side.
        top: Share of the highest tile scores that are averaged to the score of an image: 0 takes the maximum.

    Raises:
        UserError: If images are smaller than a tile.
    """

    def __init__(self, size: tuple[int, int], side: int, overlap: int, top: float = 0.0) -> None:
        self.size, self.side, self.top = size, side, top
        self.rows, self.columns = (Axis(length, side, overlap) for length in size)
        self.corners = [(row, column) for row in self.rows.starts for column in self.columns.starts]

    def tiles(
        self, images: Tensor, content: Tensor | None
    ) -> Iterator[tuple[list[tuple[int, int]], Tensor, Tensor | None]]:
        """Iterates over the tiles that have content, a few at a time.

        Args:
            images: Images, (B, C, H, W).
            content: Content boxes of the images, (B, 4); None if everything is content.

        Yields:
            Indices of image and tile for each of n tiles; the tiles (n, C, s, s); and their content boxes (n, 4), or
            None.
        """
        boxes = None if content is None else self._boxes(content)  # (B, T, 4)
        if boxes is None:
            wanted = [(image, tile) for image in range(len(images)) for tile in range(len(self.corners))]
        else:
            wanted = [(image, tile) for image, tile in _hold(boxes).nonzero().tolist()]
        step = max(1, CHUNK_PIXELS // self.side**2)
        for start in range(0, len(wanted), step):
            some = wanted[start : start + step]
            corners = [(image, *self.corners[tile]) for image, tile in some]
            cut = [
                images[image, :, row : row + self.side, column : column + self.side] for image, row, column in corners
            ]
            own = None if boxes is None else torch.stack([boxes[image, tile] for image, tile in some])
            yield some, torch.stack(cut), unless_whole(own, (self.side, self.side))

    def score(self, score: Score, images: Tensor, content: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scores images tile by tile.

        Args:
            score: Function from tiles (n, C, s, s) and their content boxes, or None, to scores (n,) and maps (n, s, s),
                both >= 0.
            images: Images, (B, C, H, W).
            content: Content boxes of the images, (B, 4); None if everything is content. Tiles without content are not
                scored.

        Returns:
            Scores (B,) and maps (B, H, W).
        """
        if torch.compiler.is_exporting():
            return self._score_at_once(score, images, content)
        down, across = (torch.from_numpy(axis.weights()).to(images.device) for axis in (self.rows, self.columns))
        maps = images.new_zeros(len(images), *self.size)
        found = images.new_zeros(len(images), len(self.corners))
        scored = torch.zeros_like(found, dtype=torch.bool)
        for chunk, tiles, boxes in self.tiles(images, content):
            for (image, tile), own, surface in zip(chunk, *score(tiles, boxes), strict=True):
                (row, column), (i, j) = self.corners[tile], divmod(tile, len(self.columns.starts))
                weighted = surface * down[i][:, None] * across[j]
                maps[image, row : row + self.side, column : column + self.side] += weighted
                found[image, tile], scored[image, tile] = own, True
        return image_scores(found[:, None], self.top, scored[:, None]), maps

    def _score_at_once(self, score: Score, images: Tensor, content: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scores all tiles at once, for an export: the graph cannot depend on the number of tiles with content."""
        (rows, columns), side = (len(axis.starts) for axis in (self.rows, self.columns)), self.side
        wide = images
        for dimension, axis in ((2, self.rows), (3, self.columns)):
            wide = wide.index_select(dimension, torch.from_numpy(axis.indices()).to(images.device))
        tiles = wide.reshape(*wide.shape[:2], rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
        boxes = None if content is None else self._boxes(content)
        found, maps = score(tiles.flatten(0, 2), None if boxes is None else boxes.flatten(0, 1))
        found, maps = found.reshape(-1, rows * columns), maps.reshape(-1, rows, columns, side, side)
        held = None
        if boxes is not None:
            held = _hold(boxes)
            maps = torch.where(held.reshape(-1, rows, columns, 1, 1), maps, 0)
        maps = maps.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)  # (B, rows s, columns s)
        for dimension, axis in ((1, self.rows), (2, self.columns)):
            maps = _gathered(maps, dimension, axis)
        return image_scores(found[:, None], self.top, None if held is None else held[:, None]), maps

    def _boxes(self, content: Tensor) -> Tensor:
        """Clips content boxes (B, 4) to each tile and returns them in its coordinates, (B, T, 4)."""
        corners = torch.tensor(self.corners, device=content.device).repeat(1, 2)  # (T, 4)
        return (content[:, None] - corners).clamp(0, self.side)


def _hold(boxes: Tensor) -> Tensor:
    """Returns which boxes (..., 4) are not empty, (...) bool."""
    top, left, bottom, right = boxes.unbind(dim=-1)
    return (bottom > top) & (right > left)


def _gathered(maps: Tensor, dimension: int, axis: Axis) -> Tensor:
    """Merges tiles that are concatenated along a dimension into an image, using the weights of the axis."""
    shape = [1] * maps.ndim
    shape[dimension] = axis.length
    joined: Tensor | None = None
    indices_of, weights_of = (torch.from_numpy(part).to(maps.device) for part in axis.gathering())
    for indices, weights in zip(indices_of, weights_of, strict=True):
        part = maps.index_select(dimension, indices) * weights.view(shape)
        joined = part if joined is None else joined + part
    assert joined is not None
    return joined
