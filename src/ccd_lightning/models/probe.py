"""How well an encoder describes normal images, measured without a detector."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import binary_auroc

from ccd_lightning.models.gaussian import PatchGaussian, Sums


class FeatureProbe:
    """How far an image's features are from one Gaussian of normal images' features.

    A measure of an encoder that needs no detector (Lee et al., NeurIPS 2018). Features are brought to a root mean
    square of 1 first, so that the ridge means the same for every encoder. It is fitted when it is needed: no
    module, and no part of a checkpoint.

    Args:
        ridge: Added to the diagonal of the covariance, of which the features' mean square is 1.
    """

    def __init__(self, ridge: float = 0.01) -> None:
        self._gaussian = PatchGaussian(ridge, torch.float64)

    def update(self, features: Tensor) -> None:
        """Adds the features (N, D) of normal images; what is kept does not grow with their number."""
        self._gaussian.update(self._scale(features))

    def fit(self, gather: Callable[[Sums | None], list[Sums | None]] = lambda sums: [sums]) -> bool:
        """Fits the Gaussian to all features since the last fit.

        Args:
            gather: From this process's sums (None where it saw no image), on the CPU, to those of all processes.

        Returns:
            Whether all features were numbers; if not, the Gaussian stays as it was.
        """
        own = Sums(*(part.cpu() for part in self._gaussian.sums)) if self._gaussian.is_collecting else None
        self._gaussian.merge_ranks(sums for sums in gather(own) if sums)
        if not self._gaussian.sums.mean.isfinite().all():
            self._gaussian.clear()
            return False
        self._gaussian.fit()
        return True

    def __call__(self, features: Tensor) -> Tensor:
        """Distances (N,) of features (N, D)."""
        fitted = features.to(self._gaussian.mean.device)  # the CPU: this is no module, which a device is told of
        return self._gaussian.mahalanobis(self._scale(fitted))[:, 0].to(features.device, torch.float32)

    @staticmethod
    def _scale(features: Tensor) -> Tensor:
        return functional.normalize(features, dim=1)[:, :, None].mul(features.shape[1] ** 0.5)


def separation(distances: Tensor, abnormal: Tensor) -> dict[str, float]:
    """How well a probe's distances tell two kinds of images apart.

    Args:
        distances: (N,), positive.
        abnormal: (N,) bool, which of them should be the larger ones; there are some of either kind.

    Returns:
        `auroc`, and `separation`, how many nats the means of their logarithms lie apart.
    """
    nats = distances.log()
    return {
        "auroc": float(binary_auroc(distances / distances.max(), abnormal.long())),  # beyond 1 it squashes
        "separation": float(nats[abnormal].mean() - nats[~abnormal].mean()),
    }
