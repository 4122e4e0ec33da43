"""IGD's decoder and critic: residual blocks that double or halve the resolution.

They do not use batch normalisation, so that the output for an image depends neither on the other images of the batch
nor on the number of processes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST = 4  # px, lowest resolution: that of the decoder's input and the critic's output
GROUPS = 8


def channels(size: int, width: int) -> list[int]:
    """Returns the number of channels at 4, 8, ..., `size` px.

    It is `width` at the full resolution and doubles at each halving, up to 8 times `width`.

    Raises:
        ValueError: If the size is not a power of 2 of at least 8, or the width is not a multiple of 8.
    """
    levels = (size // SMALLEST).bit_length() - 1
    if levels < 1 or SMALLEST << levels != size:
        raise ValueError(f"images of {size} px: the size must be 8, 16, 32, 64, 128, 256 or 512")
    if width < GROUPS or width % GROUPS:
        raise ValueError(f"a width of {width}: it must be a multiple of {GROUPS}")
    return [width * min(8, 1 << level) for level in reversed(range(levels + 1))]


class UpBlock(nn.Module):
    """Residual block from (B, inputs, h, w) to (B, outputs, 2h, 2w)."""

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
    """Residual block from (B, inputs, h, w) to (B, outputs, h/2, w/2)."""

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
    """Decodes latents (B, D) to images (B, 3, size, size) in [0, 1].

    Args:
        size: Side of the images in pixels, a power of 2 of at least 8.
        width: Number of channels at the full resolution, a multiple of 8.
        latent_size: Number D of latents.
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
        """Decodes latents (B, D)."""
        grid = self.first(latent).unflatten(1, (-1, SMALLEST, SMALLEST))
        images: Tensor = self.last(self.blocks(grid))
        return images


class Critic(nn.Module):
    """Maps images (B, 3, size, size) to one number each (B,); its architecture mirrors the decoder.

    Args:
        size: Side of the images in pixels, a power of 2 of at least 8.
        width: Number of channels at the full resolution, a multiple of 8.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        *rest, last = reversed(channels(size, width))
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*map(DownBlock, rest, [*rest[1:], last]))
        self.last = nn.Sequential(nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(last * SMALLEST**2, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Predicts the interpolation weights of the images."""
        return torch.squeeze(self.last(self.blocks(self.first(images))), dim=1)
