"""Random pseudo-lesions: size, outline, distortion, source and target position."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor
from torch.nn import functional

from ccd_lightning.ranges import FAMILY, ascending, at_least, within
from ccd_lightning.transforms.strong import draw
from ccd_lightning.transforms.weak_batched import adjust_hue, adjust_saturation

MIN_SIDE = 4  # px, side of the smallest lesion: with soft edges, it still changes at least four pixels
BLACK = 0.05  # pixels below this value in all channels are background
ATTEMPTS = 8  # number of attempts to find a box that is not mostly background
HARMONICS = (2.0, 3.0, 5.0)  # frequencies of the outline


@dataclass(frozen=True)
class LesionSettings:
    """Distributions of pseudo-lesions.

    Attributes:
        size: Smallest and largest side of a lesion, as shares of the image's shorter side, in (0, 1].
        strength: Smallest and largest strength, in (0, 1]. It is the opacity of a lesion and scales the other three.
        jitter: Largest relative change of brightness, contrast and saturation. The hue changes by up to a fifth of it,
            in turns.
        noise: Largest standard deviation of the Gaussian noise, for images in [0, 1].
        warp: Strength of the distortions. The fisheye raises radii to a power between 2^-warp and 2^warp. The
            horizontal wave has an amplitude of up to warp times 0.15 of the lesion's side.

    Raises:
        ValueError: If a value is out of range.
    """

    size: tuple[float, float] = (0.1, 0.3)
    strength: tuple[float, float] = (0.5, 1.0)
    jitter: float = 0.5
    noise: float = 0.06
    warp: float = 1.0

    def __post_init__(self) -> None:
        for name in ("size", "strength"):
            ascending(f"{FAMILY}.{name}", getattr(self, name), 0, 1)
        within(f"{FAMILY}.jitter", self.jitter, 0, 1)
        at_least(f"{FAMILY}.noise", self.noise, 0)
        at_least(f"{FAMILY}.warp", self.warp, 0)

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Returns the smallest and largest side of lesions, in pixels, for images of a given size.

        Raises:
            ValueError: If the image is too small for lesions.
        """
        shorter = min(height, width)
        if shorter < MIN_SIDE:
            raise ValueError(f"Pseudo-lesions need images of {MIN_SIDE} px or more, got {height} x {width}")
        low, high = (min(max(MIN_SIDE, round(share * shorter)), shorter) for share in self.size)
        return low, high


@dataclass
class Lesions:
    """Parameters of L lesions for each of B images, on the images' device.

    Attributes:
        side: Side of the lesion's box in whole pixels, (B, L).
        source: Row and column of the upper left pixel of the box that the lesion is cut from, (B, L, 2).
        target: Row and column of the upper left pixel of the box that it is pasted into, (B, L, 2).
        window: Row and column of the upper left pixel of a P x P window in the image that contains the target,
            (B, L, 2).
        strength: Strength, (B, L).
        uniform: All other random parameters, in [0, 1), (B, L, 18).
        grain: Standard normal noise, the same for all channels, (B, L, 1, P, P).
        settings: Settings of the lesions.
    """

    side: Tensor
    source: Tensor
    target: Tensor
    window: Tensor
    strength: Tensor
    uniform: Tensor
    grain: Tensor
    settings: LesionSettings

    @classmethod
    def draw(cls, images: Tensor, count: int, settings: LesionSettings, generator: Generator | None) -> Self:
        """Draws `count` lesions for each image (B, C, H, W) in [0, 1]."""
        size = images.shape[-2:]
        low, high = settings.sides(*size)
        share = draw(torch.rand, (len(images), count, 20 + 4 * ATTEMPTS), images, generator).to(images)
        grain = draw(torch.randn, (len(images), count, 1, high, high), images, generator).to(images)
        side = low + (share[..., 0] * (high - low + 1)).floor()
        weakest, strongest = settings.strength
        positions = share[..., 20:].view(*share.shape[:2], 2, ATTEMPTS, 2)
        source, target = (_place(images, side, positions[:, :, which]) for which in range(2))
        last = torch.tensor(size, device=images.device) - high
        strength = weakest + share[..., 1] * (strongest - weakest)
        return cls(side, source, target, target.minimum(last), strength, share[..., 2:20], grain, settings)

    def pixels(self, height: int, width: int) -> Tensor:
        """Returns the indices of each window's pixels in the flattened image, (B, L, P P)."""
        rows, columns = (self.window[..., axis, None] + self._line() for axis in range(2))  # (B, L, P) each
        return (rows[..., :, None] * width + columns[..., None, :]).flatten(2)

    def opacity(self) -> Tensor:
        """Returns the opacity of each lesion at the pixels of its window, (B, L, P, P) in [0, 1]; 0 outside its box.

        The shape is an ellipse with soft edges, whose outline is dented by a few harmonics.
        """
        angle, squash, *dents = self.uniform[..., :8, None, None].unbind(dim=2)  # (B, L, 1, 1) each
        feather = self.uniform[..., 8, None, None]
        x, y = self._within()
        cosine, sine = (angle * torch.pi).cos(), (angle * torch.pi).sin()
        along, across = x * cosine + y * sine, (y * cosine - x * sine) / (0.6 + 0.4 * squash)
        direction = torch.atan2(across, along)
        outline = torch.ones_like(along)  # at most 1, so that the lesion stays in the box
        for depth, phase, harmonic in zip(dents[:3], dents[3:], HARMONICS, strict=True):
            outline = outline - 0.05 * depth * (1 + (harmonic * direction + 2 * math.pi * phase).cos())
        depth = (outline - torch.hypot(along, across)) / (outline * (0.2 + 0.4 * feather))
        depth = depth.clamp(0, 1)
        return depth.square() * (3 - 2 * depth) * self.strength[..., None, None]

    def cut(self, images: Tensor) -> Tensor:
        """Cuts patches (B, L, C, P, P) from images (B, C, H, W), with a fisheye or wave distortion."""
        kind, amount, frequency, phase = self.uniform[..., 9:13, None, None].unbind(dim=2)  # (B, L, 1, 1) each
        strength = self.settings.warp * self.strength[..., None, None]
        x, y = self._within()
        radius = torch.hypot(x, y).clamp(min=1e-3)
        zoom = radius.pow(2 ** ((2 * amount - 1) * strength) - 1)
        wave = 0.3 * amount * strength * (torch.pi * ((1 + 2 * frequency) * y + 2 * phase)).sin()
        fisheye = kind < 0.5
        warped = torch.where(fisheye, x * zoom, x + wave), torch.where(fisheye, y * zoom, y)
        side = self.side[..., None, None]
        coordinates = [
            (2 * self.source[..., axis, None, None] + side * (offset + 1)) / images.shape[2 + axis] - 1
            for axis, offset in ((1, warped[0]), (0, warped[1]))
        ]
        grid = torch.stack(coordinates, dim=-1).flatten(1, 2)  # (B, L P, P, 2): patches of an image are stacked
        patches = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return patches.view(*images.shape[:2], -1, *self.grain.shape[-2:]).transpose(1, 2)

    def distort(self, patches: Tensor) -> Tensor:
        """Changes the colours of patches (B, L, C, P, P) and adds noise; grey patches stay grey."""
        flat, strength = patches.flatten(0, 1), self.strength.flatten()
        signed = 2 * self.uniform[..., 13:17] - 1  # in either direction, by at least half of the largest change
        change = (signed.sign() * (0.5 + 0.5 * signed.abs()) * self.settings.jitter).flatten(0, 1)
        change = change * strength[:, None]
        brightness, contrast, saturation, hue = (part.view(-1, 1, 1, 1) for part in change.unbind(dim=1))
        mean = flat.mean(dim=(1, 2, 3), keepdim=True)
        flat = (mean * (1 + brightness) + (flat - mean) * (1 + contrast)).clamp(0, 1)
        if flat.shape[1] == 3:
            flat = adjust_hue(adjust_saturation(flat, 1 + saturation), hue / 5)
        deviation = self.settings.noise * strength * self.uniform[..., 17].flatten()
        return (flat + deviation.view(-1, 1, 1, 1) * self.grain.flatten(0, 1)).clamp(0, 1).view_as(patches)

    def _line(self) -> Tensor:
        return torch.arange(self.grain.shape[-1], device=self.side.device)

    def _within(self) -> tuple[Tensor, Tensor]:
        """Returns x (B, L, 1, P) and y (B, L, P, 1) of a window's pixels; the target extends from -1 to 1."""
        begin = (self.window - self.target)[..., None] + self._line() + 0.5  # (B, L, 2, P)
        rows, columns = (2 * begin / self.side[..., None, None] - 1).unbind(dim=2)
        return columns[..., None, :], rows[..., :, None]


def _place(images: Tensor, side: Tensor, share: Tensor) -> Tensor:
    """Selects the first of M candidate boxes in which at least half of the pixels are not background.

    Args:
        images: Images in [0, 1], (B, C, H, W).
        side: Sides of the boxes, (B, L).
        share: Positions of the M boxes, as shares of the available room down and right, (B, L, M, 2) in [0, 1).

    Returns:
        Row and column of the upper left pixel, (B, L, 2) int64. If no box has enough foreground, it is the box with the
        most.
    """
    height, width = images.shape[-2:]
    room = torch.tensor([height, width], device=images.device) - side[..., None, None] + 1
    corners = (share * room).long()  # (B, L, M, 2)
    shown = (images.amax(dim=1) > BLACK).cumsum(dim=1).cumsum(dim=2)  # (B, H, W)
    shown = functional.pad(shown, (1, 0, 1, 0)).flatten(1)
    length = side.long()[..., None]

    def above(down: Tensor | int, right: Tensor | int) -> Tensor:
        """Counts the foreground pixels above and to the left of the shifted corners, (B, L, M)."""
        index = (corners[..., 0] + down) * (width + 1) + corners[..., 1] + right
        return shown.gather(1, index.flatten(1)).view_as(index)

    inside = above(length, length) - above(0, length) - above(length, 0) + above(0, 0)
    best = (2 * inside).minimum(length * length).argmax(dim=-1)[..., None, None]  # the first maximum
    return corners.gather(2, best.expand(-1, -1, 1, 2)).squeeze(2)
