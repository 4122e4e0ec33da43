"""IGD's decoder and critic: residual blocks that double or halve the resolution.

Nothing in them is normalised over a batch, so that what they make of an image depends neither on the images beside it
nor on the number of processes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST = 4  # px, the resolution at which the decoder begins and the critic ends
GROUPS = 8


def channels(size: int, width: int) -> list[int]:
    """Channels at 4, 8, ..., `size` px: `width` at the full resolution, twice as many at each halving, at most 8 times.

    Raises:
        ValueError: If the size is not 4 times a power of 2, at least 8, or the width not a multiple of 8.
    """
    levels = (size // SMALLEST).bit_length() - 1
    if levels < 1 or SMALLEST << levels != size:
        raise ValueError(f"images of {size} px: the size must be 8, 16, 32, 64, 128, 256 or 512")
    if width < GROUPS or width % GROUPS:
        raise ValueError(f"a width of {width}: it must be a multiple of {GROUPS}")
    return [width * min(8, 1 << level) for level in reversed(range(levels + 1))]


class UpBlock(nn.Module):
    """(B, inputs, h, w) to (B, outputs, 2h, 2w)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.GroupNorm(GROUPS, inputs),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.GroupNorm(GROUPS, outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.Upsample(scale_factor=2))

    def forward(self, features: Tensor) -> Tensor:
        """Adds the residual to the resized features."""
        out: Tensor = self.residual(features) + self.skip(features)
        return out


class DownBlock(nn.Module):
    """(B, inputs, h, w) to (B, outputs, h/2, w/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(inputs, inputs, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.AvgPool2d(2),
        )
        self.skip = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Adds the residual to the resized features."""
        out: Tensor = self.residual(features) + self.skip(features)
        return out


class Decoder(nn.Module):
    """From latents (B, D) to images (B, 3, size, size) in [0, 1].

    Args:
        size: Of the images in pixels, 4 times a power of 2.
        width: Channels at the full resolution, a multiple of 8.
        latent_size: D.
    """

    def __init__(self, size: int, width: int, latent_size: int) -> None:
        super().__init__()
        first, *rest = channels(size, width)
        self.first = nn.Linear(latent_size, first * SMALLEST**2)
        self.blocks = nn.Sequential(*map(UpBlock, [first, *rest[:-1]], rest))
        self.last = nn.Sequential(
            nn.GroupNorm(GROUPS, width), nn.ReLU(inplace=True), nn.Conv2d(width, 3, 3, padding=1), nn.Sigmoid()
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Draws the images."""
        grid = self.first(latent).unflatten(1, (-1, SMALLEST, SMALLEST))
        images: Tensor = self.last(self.blocks(grid))
        return images


class Critic(nn.Module):
    """From images (B, 3, size, size) to a number each (B,): the decoder's blocks, mirrored.

    Args:
        size: Of the images in pixels, 4 times a power of 2.
        width: Channels at the full resolution, a multiple of 8.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        *rest, last = reversed(channels(size, width))
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*map(DownBlock, rest, [*rest[1:], last]))
        self.last = nn.Sequential(nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(last * SMALLEST**2, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Guesses how far the images are interpolated."""
        return torch.squeeze(self.last(self.blocks(self.first(images))), dim=1)
