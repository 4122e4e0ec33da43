"""Loss terms and scores of IGD, the interpolated Gaussian descriptor (Chen, Tian et al., AAAI 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ccd_lightning.losses.ssim import dissimilarity_map, mean_within, ms_ssim, similarity_pyramid

DATA_RANGE = 4.7579  # R, the range of pixel values after ImageNet normalisation
WINDOW = 11
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
STRUCTURE = 0.85
BEYOND = 0.001  # slope of scores where the published one is 1; small compared with the reconstruction error of a pixel


def reconstruction_errors(
    images: Tensor,
    reconstructions: Tensor,
    window: int = WINDOW,
    weights: Sequence[float] = WEIGHTS,
    structure: float = STRUCTURE,
    data_range: float = DATA_RANGE,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns reconstruction errors and maps.

        error = structure (1 - MS-SSIM(x, x^)) + (1 - structure) mean |x - x^| / R

    In the map, the two terms are replaced by 1 - SSIM of each level, weighted as in MS-SSIM and resized to the image,
    and by |x - x^| / R of each pixel, both averaged over the channels.

    Args:
        images: Normalised images x, (B, C, H, W).
        reconstructions: Reconstructions x^, (B, C, H, W).
        window: Side of the SSIM windows in pixels.
        weights: Weights of the levels of MS-SSIM.
        structure: Share of MS-SSIM in the error, in [0, 1].
        data_range: Range R of the pixel values.
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
    """Returns the mean of `reconstruction_errors` over a batch; the arguments are the same."""
    return reconstruction_errors(images, reconstructions, **settings)[0].mean()


def gaussian_score(latent: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Returns the scores of the Gaussian classifier; their mean is its loss.

        s(z) = 1 - exp(-|z - c|^2 / sigma)

    Args:
        latent: Latents z, (N, D).
        centre: Centre c, (D,).
        scale: Scale sigma, a scalar > 0.

    Returns:
        Scores (N,) in [0, 1].
    """
    return -torch.expm1(-_relative_distance(latent, centre, scale))


def ranking_score(latent: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Returns `gaussian_score`, extended such that distant latents are not tied.

    Rounding makes s(z) = 1 if d = |z - c|^2 / sigma exceeds t = 17.3 in float32, or 37.4 in float64. From there on, the
    score continues to increase:

        s(z) + 0.001 log(max(1, d / t))

    Args:
        latent: Latents z, (N, D).
        centre: Centre c, (D,).
        scale: Scale sigma, a scalar > 0.

    Returns:
        Scores (N,) in [0, 1.1).
    """
    distance = _relative_distance(latent, centre, scale)
    limits = torch.finfo(distance.dtype)
    beyond = distance / -math.log(limits.eps / 4)
    return -torch.expm1(-distance) + BEYOND * beyond.clamp(min=1.0).clamp(max=limits.max).log()


def _relative_distance(latent: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    return (latent - centre).square().sum(dim=1) / scale


def interpolate_latents(latent: Tensor, partner: Tensor, alpha: Tensor) -> Tensor:
    """Interpolates between the latents of two images: z' = alpha z + (1 - alpha) z_partner.

    Args:
        latent: Latents z, (N, D).
        partner: Latents of other images, (N, D).
        alpha: Interpolation weights in [0, 0.5], (N,).
    """
    return alpha[:, None] * latent + (1 - alpha[:, None]) * partner


def interpolation_loss(criticised: Tensor) -> Tensor:
    """Returns the decoder's loss for interpolations that the critic recognises: mean(D(G(z'))^2).

    Args:
        criticised: The critic's predictions D(G(z')) of alpha, (N,); 0 for a real image.
    """
    return criticised.square().mean()


def critic_loss(criticised: Tensor, alpha: Tensor, blended: Tensor | None = None) -> Tensor:
    """Returns the critic's loss: mean((D(G(z')) - alpha)^2) + mean(D(x^ + 0.2 (x - x^))^2).

    Args:
        criticised: The critic's predictions D(G(z')), (N,).
        alpha: Interpolation weights, (N,).
        blended: Predictions D for reconstructions blended with a fifth of the image, (N,); None omits the second term.
    """
    loss = (criticised - alpha).square().mean()
    return loss if blended is None else loss + blended.square().mean()
