"""The terms of IGD, the interpolated Gaussian descriptor (Chen, Tian et al., AAAI 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ccd_lightning.losses.ssim import dissimilarity_map, mean_within, ms_ssim, similarity_pyramid

DATA_RANGE = 4.7579  # R, between the darkest and the brightest pixel after ImageNet's normalisation
WINDOW = 11
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
STRUCTURE = 0.85
BEYOND = 0.001  # how steeply scores rise where the published one is 1: a pixel's error counts more


def reconstruction_errors(
    images: Tensor,
    reconstructions: Tensor,
    window: int = WINDOW,
    weights: Sequence[float] = WEIGHTS,
    structure: float = STRUCTURE,
    data_range: float = DATA_RANGE,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """How far images are from their reconstructions, as a number and as a map.

        error = structure (1 - MS-SSIM(x, x^)) + (1 - structure) mean |x - x^| / R

    The map has 1 - SSIM of each level, weighted as in MS-SSIM and brought to the image's size, and |x - x^| / R of each
    pixel, both averaged over the channels, in the place of the two terms.

    Args:
        images: x, (B, C, H, W), normalised pixels.
        reconstructions: x^, as the images.
        window: Side of the windows of similarity in pixels.
        weights: Of the levels of similarity.
        structure: Share of the similarity, in [0, 1].
        data_range: R, the range of the pixels.
        mask: Pixels that count in the errors, (B, H, W) bool; None for all.

    Returns:
        Errors (B,) in [0, 1] and maps (B, H, W) >= 0.

    Raises:
        ValueError: If the images are too small for the window and the number of levels.
    """
    pyramid = similarity_pyramid(images, reconstructions, len(weights), window, data_range)
    difference = (images - reconstructions).abs().mean(dim=1) / data_range  # (B, H, W)
    mean = difference.mean(dim=(1, 2)) if mask is None else mean_within(difference, mask)
    errors = structure * (1 - ms_ssim(pyramid, weights, window, mask)) + (1 - structure) * mean
    return errors, structure * dissimilarity_map(pyramid, weights) + (1 - structure) * difference


def reconstruction_loss(images: Tensor, reconstructions: Tensor, **settings: Any) -> Tensor:
    """The mean over a batch of `reconstruction_errors`, whose arguments it takes."""
    return reconstruction_errors(images, reconstructions, **settings)[0].mean()


def gaussian_score(latent: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """How far latents are from the normal ones; its mean is the loss of the Gaussian classifier.

        s(z) = 1 - exp(-|z - c|^2 / sigma)

    Args:
        latent: z, (N, D).
        centre: c, (D,).
        scale: sigma, a scalar > 0.

    Returns:
        (N,) in [0, 1].
    """
    return -torch.expm1(-_relative_distance(latent, centre, scale))


def ranking_score(latent: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """The same as `gaussian_score` up to where rounding makes that 1, and rising beyond: far latents do not tie.

    With d = |z - c|^2 / sigma, and t = 17.3 in float32, 37.4 in float64, from where on s is 1:

        s(z) + 0.001 log(max(1, d / t))

    Args:
        latent: z, (N, D).
        centre: c, (D,).
        scale: sigma, a scalar > 0.

    Returns:
        (N,) in [0, 1.1).
    """
    distance = _relative_distance(latent, centre, scale)
    limits = torch.finfo(distance.dtype)
    beyond = distance / -math.log(limits.eps / 4)
    return -torch.expm1(-distance) + BEYOND * beyond.clamp(min=1.0).clamp(max=limits.max).log()


def _relative_distance(latent: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    return (latent - centre).square().sum(dim=1) / scale


def interpolate_latents(latent: Tensor, partner: Tensor, alpha: Tensor) -> Tensor:
    """Latents between those of two images: z' = alpha z + (1 - alpha) z_partner.

    Args:
        latent: (N, D).
        partner: (N, D), those of other images.
        alpha: (N,) in [0, 0.5].
    """
    return alpha[:, None] * latent + (1 - alpha[:, None]) * partner


def interpolation_loss(criticised: Tensor) -> Tensor:
    """What the decoder pays for interpolations that the critic knows: mean(D(G(z'))^2).

    Args:
        criticised: D(G(z')), (N,): the critic's guess of alpha, 0 for a real image.
    """
    return criticised.square().mean()


def critic_loss(criticised: Tensor, alpha: Tensor, blended: Tensor | None = None) -> Tensor:
    """What the critic pays: mean((D(G(z')) - alpha)^2) + mean(D(x^ + 0.2 (x - x^))^2).

    Args:
        criticised: D(G(z')), (N,).
        alpha: Of the interpolations, (N,).
        blended: D of reconstructions with a fifth of the image, (N,); None leaves out the second term.
    """
    loss = (criticised - alpha).square().mean()
    return loss if blended is None else loss + blended.square().mean()
