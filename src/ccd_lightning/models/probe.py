"""Measures how well an encoder describes normal images, without a detector."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import binary_auroc

from ccd_lightning.models.gaussian import Moments, PatchGaussian


class FeatureProbe:
    """Computes the Mahalanobis distance of an image's features from one Gaussian of normal features.

    It evaluates an encoder without a detector (Lee et al., NeurIPS 2018). Features are first scaled to a root mean
    square of 1, so that the ridge has the same effect for every encoder. The probe is fitted when needed. It is not a
    module and not part of a checkpoint.

    Args:
        ridge: Value added to the diagonal of the covariance of the scaled features.
    """

    def __init__(self, ridge: float = 0.01) -> None:
        self._gaussian = PatchGaussian(ridge, torch.float64)

    def update(self, features: Tensor) -> None:
        """Adds the features (N, D) of normal images; memory does not grow with their number."""
        self._gaussian.update(self._scale(features))

    def fit(self, gather: Callable[[Moments | None], list[Moments | None]] = lambda sums: [sums]) -> bool:
        """Fits the Gaussian to all features since the last fit.

        Args:
            gather: Function from this process's sums, on the CPU (None if it saw no image), to those of all processes.

        Returns:
            Whether all features were finite; if not, the Gaussian does not change.
        """
        own = Moments(*(part.cpu() for part in self._gaussian.moments)) if self._gaussian.is_collecting else None
        self._gaussian.merge_ranks(sums for sums in gather(own) if sums)
        if not self._gaussian.moments.mean.isfinite().all():
            self._gaussian.clear()
            return False
        self._gaussian.fit()
        return True

    def __call__(self, features: Tensor) -> Tensor:
        """Returns the distances (N,) of features (N, D)."""
        fitted = features.to(self._gaussian.mean.device)  # the CPU, because the probe is not a module and never moves
        return self._gaussian.mahalanobis(self._scale(fitted))[:, 0].to(features.device, torch.float32)

    @staticmethod
    def _scale(features: Tensor) -> Tensor:
        return functional.normalize(features, dim=1)[:, :, None].mul(features.shape[1] ** 0.5)


def separation(distances: Tensor, abnormal: Tensor) -> dict[str, float]:
    """Measures how well a probe's distances separate two kinds of images.

    Args:
        distances: Distances, (N,), positive.
        abnormal: Images that should have the larger distances, (N,) bool. Both kinds must occur.

    Returns:
        `auroc`, and `separation`: the difference of the mean log distances, in nats.
    """
    nats = distances.log()
    return {
        # Scaled to [0, 1], because torchmetrics applies a sigmoid to larger values.
        "auroc": float(binary_auroc(distances / distances.max(), abnormal.long())),
        "separation": float(nats[abnormal].mean() - nats[~abnormal].mean()),
    }
