"""Patch features: an encoder's features at each position of an image, which detectors compare."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ccd_lightning.errors import UserError
from ccd_lightning.grids import Grid, are_channels_last, resample
from ccd_lightning.models.content import Counted, content_mask, counted
from ccd_lightning.models.encoder import Encoder
from ccd_lightning.ranges import at_least, refuse

GridPair = tuple[Grid, Grid]


@dataclass
class FeatureConfig:
    """Which features describe a position of an image.

    Attributes:
        layers: Levels of the encoder to use, in ascending order; `ccd encoders NAME` lists them. null uses those of
            stride 4, 8 and 16 (1, 2 and 3 for ResNets), and for vision transformers, whose levels all have the same
            stride, those at a quarter, a half and three quarters of the depth.
        positions: Number of positions along the shorter side, for images of any size. The number along the other side
            makes the cells about square. 0 uses the resolution of the first (finest) level.
        window: Each level is first averaged over windows of this side, in cells of its feature map; odd. 1 uses the
            features as they are, 3 is the setting of PatchCore.
        normalise: Whether the features of each level are divided by their norm at each position, and multiplied by the
            square root of their number. Then only their direction is compared, and all levels have equal weight.
    """

    layers: tuple[int, ...] | None = None
    positions: int = 0
    window: int = 1
    normalise: bool = False


class PatchFeatures:
    """Resamples levels of an encoder to one grid of positions and concatenates them.

    Args:
        encoder: Encoder that computes the feature maps. It is not registered as a submodule.
        config: Feature options, or a mapping of their values as stored in a checkpoint.

    Attributes:
        config: Feature options, with the levels that are used.
        channels: Number D of features per position.

    Raises:
        UserError: If a value is invalid.
    """

    def __init__(self, encoder: Encoder, config: FeatureConfig | Mapping[str, Any]) -> None:
        given = asdict(config) if is_dataclass(config) else dict(config)
        layers = _checked_layers(given.get("layers"), encoder)
        self.config = FeatureConfig(**given | {"layers": layers})
        self.layers = layers
        positions, window = self.config.positions, self.config.window
        at_least("model.features.positions", positions, 0, "; 0 takes those of a level")
        if window < 1 or window % 2 == 0:
            refuse("model.features.window", window, "odd: 1, 3, 5, ...")
        self._encoder = encoder
        self.channels = sum(encoder.channels[layer] for layer in layers)

    def positions(self, height: int, width: int) -> tuple[int, int]:
        """Returns the number of rows and columns of positions in images of a given size in pixels."""
        if not self.config.positions:
            stride = self._encoder.strides[self.layers[0]]
            return math.ceil(height / stride), math.ceil(width / stride)
        cell = min(height, width) / self.config.positions
        return round(height / cell), round(width / cell)

    def content_mask(self, content: Tensor | None, size: Sequence[int]) -> Tensor | None:
        """Returns which positions are content.

        Args:
            content: Content boxes, (B, 4); None if everything is content.
            size: Height and width of the images in pixels.

        Returns:
            Mask (B, h, w) bool; None for all.
        """
        if content is None:
            return None
        height, width = size
        return content_mask(content, self.grid(height, width), self.positions(height, width), size)

    def counted(self, content: Tensor | None, known: Tensor | None, size: Sequence[int]) -> Counted:
        """Returns which positions and pixels count in scores and maps.

        Args:
            content: Content boxes, (B, 4); None if everything is content.
            known: Positions at which the detector has seen normal images, (P,) or (h, w) bool; None for all.
            size: Height and width of the images in pixels.
        """
        height, width = size
        units = self.positions(height, width)
        known = None if known is None else known.view(units)
        return counted(content, known, self.grid(height, width), units, size)

    def settings(self) -> dict[str, Any]:
        """Returns the options as plain values, for a checkpoint."""
        return asdict(self.config)

    def grid(self, height: int, width: int) -> GridPair:
        """Returns the grids (rows, columns) of the positions in images of a given size in pixels."""
        if self.config.positions == 0:
            return self._encoder.grids((height, width), self.layers)[0]
        rows, columns = self.positions(height, width)
        return _centred(height, rows), _centred(width, columns)

    def __call__(self, images: Tensor, channels: Sequence[Tensor] | None = None) -> Tensor:
        """Computes the features of the positions of images.

        Args:
            images: Images in [0, 1], (B, 3, H, W).
            channels: Selected channels of each level, as returned by `by_level`; None for all D.

        Returns:
            Features (B, d, h, w).
        """
        height, width = images.shape[-2:]
        levels, target = self._encoder.maps(images, self.layers), self.grid(height, width)
        size: Sequence[int] = self.positions(height, width) if self.config.positions else levels[0].shape[-2:]
        grids = self._encoder.grids((height, width), self.layers)
        brought = []
        for index, (level, grid) in enumerate(zip(levels, grids, strict=True)):
            wanted = None if channels is None else channels[index]
            if not self.config.normalise:  # normalising needs all channels; otherwise select early
                level, wanted = _chosen(level, wanted), None
            level = resample(self._averaged(level), grid, target, size)
            brought.append(_chosen(unit_length(level) if self.config.normalise else level, wanted))
        return torch.cat(brought, dim=1)

    def by_level(self, channels: Tensor) -> list[Tensor]:
        """Splits channel indices by level.

        Args:
            channels: Indices from 0 to D - 1 in ascending order, (d,).

        Returns:
            For each level, the indices of its channels within the level.
        """
        counts = [0, *itertools.accumulate(self._encoder.channels[layer] for layer in self.layers)]
        return [
            channels[(channels >= first) & (channels < after)] - first for first, after in itertools.pairwise(counts)
        ]

    def _averaged(self, level: Tensor) -> Tensor:
        """Averages a level (B, C, h, w) over windows; at the border, over the part of the window inside the map."""
        window = self.config.window
        return functional.avg_pool2d(level, window, 1, window // 2, count_include_pad=False) if window > 1 else level


def _chosen(maps: Tensor, channels: Tensor | None) -> Tensor:
    """Selects channels (d,) of maps (B, C, h, w), or all of them for None; keeps the channels-last memory format."""
    if channels is None:
        return maps
    if are_channels_last(maps):
        return maps.movedim(1, -1)[..., channels].movedim(-1, 1)
    return maps[:, channels]


def unit_length(features: Tensor) -> Tensor:
    """Divides features (B, C, ...) by their root mean square over the channels."""
    directions: Tensor = functional.normalize(features, dim=1)
    return directions * math.sqrt(features.shape[1])


def _centred(length: int, count: int) -> Grid:
    """Returns the grid of the centres of `count` equal parts of a length in pixels."""
    return Grid(length / count, (length / count - 1) / 2)


def _checked_layers(layers: Any, encoder: Encoder) -> tuple[int, ...]:
    """Returns the levels to use.

    Raises:
        UserError: If the encoder lacks one of them, or they are not in ascending order.
    """
    if layers is None:
        return encoder.default_levels
    count = len(encoder.channels)
    if not layers or list(layers) != sorted({*layers} & {*range(count)}):
        raise UserError(
            f"model.features.layers is {list(layers)}, but must be some of 0 to {count - 1}, in ascending order: the"
            f" levels of {encoder.name}, which ccd encoders {encoder.name} lists."
        )
    return tuple(layers)
