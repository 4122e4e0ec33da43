"""Gaussian of IGD's latents, and latents that are principal components."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ccd_lightning.distributed import gather_batch
from ccd_lightning.models.means import AddUp, Batches, mean_over

NEGLIGIBLE = 1e-6  # share of the first component's variance


class LatentGaussian(nn.Module):
    """Centre and scale of the latents of normal images, as in IGD (Chen, Tian et al., AAAI 2022).

    Args:
        latent_size: Number D of latents.
        floor: Minimum absolute value of the centre's entries. Smaller entries are moved to it and keep their sign.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, latent_size: int, floor: float = 0.1) -> None:
        super().__init__()
        self.floor = floor
        self.register_buffer("centre", torch.full((latent_size,), floor))
        self.register_buffer("scale", torch.tensor(float("nan")))  # until it is fitted

    @torch.no_grad()
    def fit(self, latents: Batches, add_up: AddUp = lambda total: total) -> None:
        """Estimates centre and scale in two passes over the latents.

            c = mean z,   sigma = mean max(1, |z - c|^2)

        The paper does not say whether the maximum is taken of each distance, as here, or of their mean over a batch.
        Only the former does not depend on the batches.

        Args:
            latents: Returns an iterator over the batches (N, D) of this process's latents, the same each time.
            add_up: Sums a tensor over all processes.
        """
        centre = floor_centre(mean_over(latents, lambda z: z.sum(dim=0), self.centre, add_up), self.floor)
        scale = mean_over(latents, lambda z: (z - centre).square().sum(dim=1).clamp(min=1).sum(), self.scale, add_up)
        self.centre.copy_(centre)
        self.scale.copy_(scale)


def floor_centre(centre: Tensor, floor: float) -> Tensor:
    """Moves entries of (D,) with an absolute value below `floor` to +-floor, keeping their sign; 0 stays 0."""
    return torch.where(centre.abs() < floor, floor * centre.sign(), centre)


@torch.no_grad()
def whiten(layer: nn.Linear, features: Batches, add_up: AddUp = lambda total: total) -> None:
    """Sets the weights of a linear layer to return the leading principal components with mean 0 and variance 1.

    The squared norm of the output is the squared Mahalanobis distance within these components. Components with
    negligible variance, such as those beyond the number of images, are always 0. The largest weight of each component
    is positive, so that the result does not depend on the signs that the eigenvalue solver returns.

    Args:
        layer: Linear layer from F features to D <= F components.
        features: Returns an iterator over the batches (N, F) of this process's features, the same each time. It is
            called twice.
        add_up: Sums a tensor over all processes.
    """
    square = layer.weight.new_zeros(layer.in_features, layer.in_features)
    mean = mean_over(features, lambda f: f.sum(dim=0), square[0], add_up)
    covariance = mean_over(features, lambda f: (f - mean).T @ (f - mean), square, add_up)
    variances, vectors = (part.flip(-1)[..., : layer.out_features] for part in torch.linalg.eigh(covariance.cpu()))
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    scales = torch.where(variances > NEGLIGIBLE * variances[0], largest.sign()[0] / variances.clamp(min=0).sqrt(), 0)
    weight = (vectors * scales).T.to(mean)
    layer.weight.copy_(weight)
    layer.bias.copy_(-weight @ mean)


def partners(latent: Tensor, own: Tensor) -> Tensor:
    """Pairs each latent with the one at the mirrored position in the batch of all ranks.

    Args:
        latent: Latents of this rank's images, n per image, (B n, D).
        own: Indices of this rank's images in the batch of all ranks, (B,).

    Returns:
        The partners of this rank's latents, (B n, D).
    """
    everyone = gather_batch(latent.reshape(len(own), -1))[0]  # (all images, n D)
    flipped = everyone.view(-1, latent.shape[1]).flip(0).view_as(everyone)
    return flipped[own].view_as(latent)
