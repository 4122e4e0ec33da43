"""Pseudo-lesions: distorted patches of an image that are pasted elsewhere into the same image with soft edges.

MedMix (Tian et al., MedIA 2023, arXiv 2109.01303) is the strong augmentation family with them. The paper was not
available, only a summary of it: its patch sizes and the strengths of its distortions are unknown. They are options here
with our own defaults; the soft, irregular edges are also our choice.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from ccd_lightning.transforms.lesions import Lesions, LesionSettings
from ccd_lightning.transforms.strong import draw

VISIBLE = 0.1  # minimum mean difference, before opacity, between a lesion and the pixels that it covers
WIDE = LesionSettings(size=(1 / 16, 1 / 3), strength=(0.15, 1.0))


class MedMix(nn.Module):
    """Pastes `index` pseudo-lesions into an image; they may overlap. Grey images stay grey.

    The published sizes and strengths are unknown; all of them are options, which `LesionSettings` describes.

    Args:
        size: Smallest and largest side of a lesion, as shares of the image's shorter side, in (0, 1].
        strength: Smallest and largest strength of a lesion, in (0, 1].
        jitter: Largest change of colours, in [0, 1].
        noise: Largest standard deviation of the noise.
        warp: Strength of the fisheye and wave distortions.

    Raises:
        ValueError: If a value is out of range.
    """

    count = 4
    weak_first = ()
    weak_omitted = ("hole",)

    def __init__(
        self,
        size: tuple[float, float] = (0.1, 0.3),
        strength: tuple[float, float] = (0.5, 1.0),
        jitter: float = 0.5,
        noise: float = 0.06,
        warp: float = 1.0,
    ) -> None:
        super().__init__()
        self.settings = LesionSettings(size, strength, jitter, noise, warp)

    def forward(self, images: Tensor, index: Tensor, generator: Generator | None = None) -> Tensor:
        """Pastes the number of lesions given by `index` (B,) into images in [0, 1] or uint8."""
        wanted = torch.arange(self.count - 1, device=images.device) < index.to(images.device)[:, None]  # (B, K - 1)
        return _paste(images, wanted, self.settings, generator)


def paste_lesions(
    images: Tensor, generator: Generator | None = None, most: int = 1, settings: LesionSettings = WIDE
) -> tuple[Tensor, Tensor]:
    """Pastes pseudo-lesions into every image; by default sizes and strengths vary widely, from faint to obvious.

    Args:
        images: Images in [0, 1] or uint8, (B, C, H, W).
        generator: Random generator.
        most: Maximum number of lesions per image; the minimum is 1.
        settings: Settings of the lesions.

    Returns:
        New images of the same shape and dtype, and a mask of the changed pixels, (B, H, W) bool. Every image has some.

    Raises:
        ValueError: If the images are smaller than a lesion, or `most` is not positive.
    """
    if most < 1:
        raise ValueError(f"most must be 1 or more, got {most}")
    number = (draw(torch.rand, (len(images), 1), images, generator) * most).long() + 1
    pasted = _paste(images, torch.arange(most, device=images.device) < number, settings, generator)
    return pasted, (pasted != images).any(dim=1)


def _paste(images: Tensor, wanted: Tensor, settings: LesionSettings, generator: Generator | None) -> Tensor:
    """Draws L lesions for each image (B, C, H, W) and pastes those selected by `wanted` (B, L), one after another."""
    whole = images.dtype == torch.uint8
    clean = images.float() / 255 if whole else images
    lesions = Lesions.draw(clean, wanted.shape[1], settings, generator)
    patches = lesions.distort(lesions.cut(clean))  # (B, L, C, P, P)
    opacity = lesions.opacity() * wanted[..., None, None]  # (B, L, P, P)
    indices = lesions.pixels(*images.shape[-2:])[:, :, None].expand(-1, -1, images.shape[1], -1)  # (B, L, C, P P)
    flat = clean.flatten(2)
    for patch, share, index in zip(*(part.unbind(dim=1) for part in (patches, opacity, indices)), strict=True):
        covered = flat.gather(2, index).view_as(patch)
        patch = _visible(patch, covered, share[:, None])
        mixed = covered + share[:, None] * (patch - covered)  # unchanged where the share is 0
        flat = flat.scatter(2, index, mixed.flatten(2))
    pasted = flat.view_as(clean)
    return (pasted * 255).round().to(torch.uint8) if whole else pasted


def _visible(patch: Tensor, covered: Tensor, share: Tensor) -> Tensor:
    """Makes patches (B, C, P, P) too similar to what they cover brighter, or darker on bright pixels."""
    weight = share / share.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)  # (B, 1, P, P)
    difference = ((patch - covered).mean(dim=1, keepdim=True) * weight).sum(dim=(2, 3), keepdim=True)
    gap = ((patch - covered).abs().mean(dim=1, keepdim=True) * weight).sum(dim=(2, 3), keepdim=True)
    bright = (covered.mean(dim=1, keepdim=True) * weight).sum(dim=(2, 3), keepdim=True) > 0.5
    shift = torch.where(bright, -VISIBLE, VISIBLE) - difference
    return (patch + torch.where(gap < VISIBLE, shift, torch.zeros_like(shift))).clamp(0, 1)
