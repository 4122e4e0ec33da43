"""How pseudo-lesions are drawn: their size, outline and distortion, and where they are cut from and pasted to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor
from torch.nn import functional

from ccd_lightning.ranges import FAMILY, at_least, rising, within
from ccd_lightning.transforms.strong import draw
from ccd_lightning.transforms.weak_batched import adjust_hue, adjust_saturation

LEAST = 4  # pixels: side of the smallest lesion, whose edges leave four pixels or more
BLACK = 0.05  # what is darker in all channels is taken for background
ATTEMPTS = 8  # at a place that shows more than background
HARMONICS = (2.0, 3.0, 5.0)  # of the outline


@dataclass(frozen=True)
class LesionSettings:
    """Distributions of pseudo-lesions.

    Attributes:
        size: Smallest and largest side of a lesion, as shares of the image's shorter side, in (0, 1].
        strength: Smallest and largest strength, in (0, 1]. It is a lesion's opacity, and a factor of the other three.
        jitter: Largest change of brightness, contrast and saturation, as a share; of the hue, a fifth of it in turns.
        noise: Largest standard deviation of the Gaussian noise, on images in [0, 1].
        warp: Of the fisheye, whose radii are raised to a power between 2^-warp and 2^warp, and of the horizontal
            wave, whose largest amplitude is this times 0.15 of the lesion's side.

    Raises:
        ValueError: If one of them is impossible.
    """

    size: tuple[float, float] = (0.1, 0.3)
    strength: tuple[float, float] = (0.5, 1.0)
    jitter: float = 0.5
    noise: float = 0.06
    warp: float = 1.0

    def __post_init__(self) -> None:
        for name in ("size", "strength"):
            rising(f"{FAMILY}.{name}", getattr(self, name), 0, 1)
        within(f"{FAMILY}.jitter", self.jitter, 0, 1)
        at_least(f"{FAMILY}.noise", self.noise, 0)
        at_least(f"{FAMILY}.warp", self.warp, 0)

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Smallest and largest side in pixels of lesions in an image.

        Raises:
            ValueError: If the image is too small for any.
        """
        shorter = min(height, width)
        if shorter < LEAST:
            raise ValueError(f"Pseudo-lesions need images of {LEAST} px or more, got {height} x {width}")
        low, high = (min(max(LEAST, round(share * shorter)), shorter) for share in self.size)
        return low, high


@dataclass
class Lesions:
    """What L lesions of each of B images are, all (B, L, ...) on the images' device.

    Attributes:
        side: Of the box that a lesion lies in, (B, L), whole pixels.
        source: Row and column of the upper left pixel of the box that it is cut from, (B, L, 2).
        target: The same of the box that it is pasted into.
        window: The same of a window of P x P pixels within the image that the target lies in.
        strength: (B, L).
        uniform: (B, L, 18) in [0, 1): all else that was drawn.
        grain: (B, L, 1, P, P) standard normal, alike for all channels.
        settings: Of the distortions.
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
        places = share[..., 20:].view(*share.shape[:2], 2, ATTEMPTS, 2)
        source, target = (_place(images, side, places[:, :, which]) for which in range(2))
        last = torch.tensor(size, device=images.device) - high
        strength = weakest + share[..., 1] * (strongest - weakest)
        return cls(side, source, target, target.minimum(last), strength, share[..., 2:20], grain, settings)

    def pixels(self, height: int, width: int) -> Tensor:
        """Where in a flattened image the pixels of each window are, (B, L, P P)."""
        rows, columns = (self.window[..., axis, None] + self._line() for axis in range(2))  # (B, L, P) each
        return (rows[..., :, None] * width + columns[..., None, :]).flatten(2)

    def opacity(self) -> Tensor:
        """How much of each lesion is seen at the pixels of its window, (B, L, P, P) in [0, 1]; 0 outside of its box.

        An ellipse whose outline is dented by some harmonics, and whose edges are soft.
        """
        angle, squash, *dents = self.uniform[..., :8, None, None].unbind(dim=2)  # (B, L, 1, 1) each
        feather = self.uniform[..., 8, None, None]
        x, y = self._within()
        cosine, sine = (angle * torch.pi).cos(), (angle * torch.pi).sin()
        along, across = x * cosine + y * sine, (y * cosine - x * sine) / (0.6 + 0.4 * squash)
        direction = torch.atan2(across, along)
        outline = torch.ones_like(along)  # at most 1, so that nothing is outside of the box
        for depth, phase, harmonic in zip(dents[:3], dents[3:], HARMONICS, strict=True):
            outline = outline - 0.05 * depth * (1 + (harmonic * direction + 2 * math.pi * phase).cos())
        depth = (outline - torch.hypot(along, across)) / (outline * (0.2 + 0.4 * feather))
        depth = depth.clamp(0, 1)
        return depth.square() * (3 - 2 * depth) * self.strength[..., None, None]

    def cut(self, images: Tensor) -> Tensor:
        """Patches of images (B, C, H, W), seen through a fisheye or with horizontal waves: (B, L, C, P, P)."""
        kind, amount, frequency, phase = self.uniform[..., 9:13, None, None].unbind(dim=2)  # (B, L, 1, 1) each
        strength = self.settings.warp * self.strength[..., None, None]
        x, y = self._within()
        radius = torch.hypot(x, y).clamp(min=1e-3)
        zoom = radius.pow(2 ** ((2 * amount - 1) * strength) - 1)
        wave = 0.3 * amount * strength * (torch.pi * ((1 + 2 * frequency) * y + 2 * phase)).sin()
        fisheye = kind < 0.5
        warped = torch.where(fisheye, x * zoom, x + wave), torch.where(fisheye, y * zoom, y)
        side = self.side[..., None, None]
        grid = [
            (2 * self.source[..., axis, None, None] + side * (place + 1)) / images.shape[2 + axis] - 1
            for axis, place in ((1, warped[0]), (0, warped[1]))
        ]
        places = torch.stack(grid, dim=-1).flatten(1, 2)  # (B, L P, P, 2): an image's patches below each other
        patches = functional.grid_sample(images, places, padding_mode="border", align_corners=False)
        return patches.view(*images.shape[:2], -1, *self.grain.shape[-2:]).transpose(1, 2)

    def distort(self, patches: Tensor) -> Tensor:
        """Changes colours of patches (B, L, C, P, P) and adds noise; of grey ones all channels stay alike."""
        flat, strength = patches.flatten(0, 1), self.strength.flatten()
        signed = 2 * self.uniform[..., 13:17] - 1  # more or less, by half of the largest change or more
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
        """Columns (B, L, 1, P) and rows (B, L, P, 1) of a window's pixels, from -1 to 1 within the target."""
        begin = (self.window - self.target)[..., None] + self._line() + 0.5  # (B, L, 2, P)
        rows, columns = (2 * begin / self.side[..., None, None] - 1).unbind(dim=2)
        return columns[..., None, :], rows[..., :, None]


def _place(images: Tensor, side: Tensor, share: Tensor) -> Tensor:
    """Of several boxes in an image, the first that shows more than background: mostly pixels that are not black.

    Args:
        images: (B, C, H, W) in [0, 1].
        side: Of the boxes, (B, L).
        share: Of the way that each of M boxes can be moved down and to the right, (B, L, M, 2) in [0, 1).

    Returns:
        Row and column of the upper left pixel, (B, L, 2) int64; of the box that shows most, where none shows enough.
    """
    height, width = images.shape[-2:]
    room = torch.tensor([height, width], device=images.device) - side[..., None, None] + 1
    corners = (share * room).long()  # (B, L, M, 2)
    shown = (images.amax(dim=1) > BLACK).cumsum(dim=1).cumsum(dim=2)  # (B, H, W)
    shown = functional.pad(shown, (1, 0, 1, 0)).flatten(1)
    length = side.long()[..., None]

    def above(down: Tensor | int, right: Tensor | int) -> Tensor:
        """How many pixels above and to the left of these corners are not black, (B, L, M)."""
        place = (corners[..., 0] + down) * (width + 1) + corners[..., 1] + right
        return shown.gather(1, place.flatten(1)).view_as(place)

    inside = above(length, length) - above(0, length) - above(length, 0) + above(0, 0)
    best = (2 * inside).minimum(length * length).argmax(dim=-1)[..., None, None]  # the first one of equals
    return corners.gather(2, best.expand(-1, -1, 1, 2)).squeeze(2)
