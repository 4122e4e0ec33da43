"""The three heads of pretraining, which are discarded afterwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ProjectionHead(nn.Sequential):
    """MLP 512-512-128 with batch normalisation, which projects features to the space of the contrastive loss.

    Without batch normalisation, the projections of a network that starts from random weights collapse to one point
    within a few steps and stay there.

    Args:
        inputs: Number of features.
        hidden: Number of hidden units.
        outputs: Number of dimensions of the projections.
        last_norm: Whether the projections are batch-normalised too.
    """

    OUTPUTS = 128

    def __init__(self, inputs: int = 512, hidden: int = 512, outputs: int = OUTPUTS, last_norm: bool = True) -> None:
        super().__init__(
            nn.Linear(inputs, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, outputs, bias=False),
            *([nn.BatchNorm1d(outputs)] if last_norm else []),
        )


class AugmentationHead(nn.Linear):
    """Linear head on features (B, 512) that predicts the strong augmentation that was applied: logits (B, K)."""


class PositionHead(nn.Module):
    """MLP 512-128-8 on the difference of two patches' features that predicts their relative position: logits (B, 8)."""

    def __init__(self, inputs: int = 512, hidden: int = 128, positions: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, positions))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Returns logits (B, 8) from the features (B, 512) of the first and second patches."""
        logits: Tensor = self.layers(first - second)
        return logits


def feature_std(features: Tensor) -> Tensor:
    """Returns the spread of normalised features or projections, a measure of collapse.

    It is the standard deviation of z / |z|, averaged over dimensions, times sqrt(D): about 1 when z covers the sphere,
    0 when all z / |z| are the same.

    Args:
        features: Features z, (N, D).

    Returns:
        Scalar >= 0.
    """
    z = torch.nn.functional.normalize(features.detach().float(), dim=1)
    return z.std(dim=0).mean().mul(z.shape[1] ** 0.5)
