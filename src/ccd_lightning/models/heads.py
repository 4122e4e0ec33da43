"""The three heads of pretraining; all of them are discarded afterwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ProjectionHead(nn.Sequential):
    """MLP 512-512-128 with batch normalisation, to the space in which distributions are contrasted.

    Without the normalisation all projections of a network that starts from random weights become one point within
    some steps, and stay there.

    Args:
        inputs: Features.
        hidden: Units of the hidden layer.
        outputs: Dimensions of the projections.
        last_norm: Whether the projections are normalised too.
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
    """Linear head on the features (B, 512) that tells which strong augmentation was applied: logits (B, K)."""


class PositionHead(nn.Module):
    """MLP 512-128-8 on the difference of two patches' features: logits (B, 8) of where the second one lies."""

    def __init__(self, inputs: int = 512, hidden: int = 128, positions: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, positions))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Takes the features (B, 512) of the first and second patches."""
        logits: Tensor = self.layers(first - second)
        return logits


def feature_std(features: Tensor) -> Tensor:
    """How far normalised features, or projections, are from being one point.

    The mean over dimensions of the standard deviation of z / |z|, times sqrt(D): about 1 when z fills the sphere, 0
    when all are one point.

    Args:
        features: (N, D).

    Returns:
        Scalar >= 0.
    """
    z = torch.nn.functional.normalize(features.detach().float(), dim=1)
    return z.std(dim=0).mean().mul(z.shape[1] ** 0.5)
