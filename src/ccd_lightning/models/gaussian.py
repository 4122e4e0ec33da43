"""Gaussians of normal features, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Sums = tuple[float, Tensor, Tensor]


class PatchGaussian(nn.Module):
    """One Gaussian a position, as PaDiM uses them (Defard et al., ICPR 2020, section III-B).

    Count, mean and scatter matrix are merged batch by batch in float64 (Chan et al., 1979), so that memory does not
    grow with the number of images, and neither the order nor the size of the batches matters. They are not kept in
    checkpoints; what `fit` makes of them is. The number of positions P and the length D of an embedding are those of
    the first batch, or of the state that is loaded.

    Args:
        ridge: Added to the diagonal of the covariance.
        dtype: Of the fitted Gaussian; float32 halves the checkpoint.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, ridge: float = 0.01, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.ridge = ridge
        # Scoring needs these two, and only these.
        self.register_buffer("mean", torch.empty(0, 0, dtype=dtype))  # (P, D)
        self.register_buffer("whitening", torch.empty(0, 0, 0, dtype=dtype))  # (P, D, D)
        self._sums: tuple[float, Tensor, Tensor] | None = None

    @torch.no_grad()
    def update(self, embeddings: Tensor) -> None:
        """Adds the embeddings (B, D, P) or (B, D, H, W) of normal images."""
        exact = "cpu" if embeddings.device.type == "mps" else embeddings.device  # MPS has no float64
        batch = by_position(embeddings).to(exact, torch.float64)  # (P, B, D)
        mean = batch.mean(dim=1)  # (P, D)
        centred = batch - mean[:, None]
        self._merge(batch.shape[1], mean, centred.transpose(1, 2) @ centred)

    def _merge(self, count: float, mean: Tensor, scatter: Tensor) -> None:
        if self._sums is None:
            self._sums = count, mean.clone(), scatter.clone()
            return
        seen, old_mean, old_scatter = self._sums
        delta = mean - old_mean  # (P, D)
        weighted = delta * (seen * count / (seen + count))
        old_scatter.add_(scatter).baddbmm_(weighted[:, :, None], delta[:, None, :])
        self._sums = seen + count, old_mean.add_(delta * (count / (seen + count))), old_scatter

    @property
    def is_collecting(self) -> bool:
        """Whether something was seen since the last fit."""
        return self._sums is not None

    @property
    def sums(self) -> tuple[float, Tensor, Tensor]:
        """Count, mean (P, D) and scatter matrix (P, D, D) of what was seen since the last fit.

        Raises:
            ValueError: If nothing was.
        """
        if self._sums is None:
            raise ValueError("No embeddings were seen")
        return self._sums

    def clear(self) -> None:
        """Forgets what was seen since the last fit."""
        self._sums = None

    @torch.no_grad()
    def merge_ranks(self, counts: Tensor, means: Tensor, scatters: Tensor) -> None:
        """Replaces this rank's sums by those of all R ranks: (R,), (R, P, D) and (R, P, D, D)."""
        self._sums = None
        for count, mean, scatter in zip(counts, means, scatters, strict=True):
            self._merge(float(count), mean, scatter)

    @torch.no_grad()
    def fit(self) -> None:
        """Turns the accumulated sums into mean and whitening matrix, and releases them.

        With the unbiased covariance S and S + ridge I = L L^T, the whitening matrix is L^-1.

        Raises:
            ValueError: If fewer than two images were seen.
        """
        count, mean, scatter = self.sums
        if count < 2:
            raise ValueError(f"A covariance needs at least 2 images, got {count:.0f}")
        covariance = scatter / (count - 1)
        covariance.diagonal(dim1=1, dim2=2).add_(self.ridge)
        factor = torch.linalg.cholesky(covariance)
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device).expand_as(factor)
        self.whitening = torch.linalg.solve_triangular(factor, identity, upper=False).to(self.mean)
        self.mean = mean.to(self.mean)
        self._sums = None

    def mahalanobis(self, embeddings: Tensor) -> Tensor:
        """Distances from the Gaussians.

        Args:
            embeddings: (B, D, P) or (B, D, H, W).

        Returns:
            (B, P) or (B, H, W), >= 0.

        Raises:
            ValueError: If there are other positions or channels than those of the fit.
        """
        batch = by_position(embeddings).to(self.mean.dtype)  # (P, B, D)
        if (batch.shape[0], batch.shape[2]) != tuple(self.mean.shape):
            raise ValueError(
                f"Expected embeddings of {self.mean.shape[1]} channels at {self.mean.shape[0]} positions, "
                f"got {batch.shape[2]} at {batch.shape[0]}"
            )
        distance: Tensor = ((batch - self.mean[:, None]) @ self.whitening.transpose(1, 2)).norm(dim=2)  # (P, B)
        return distance.T.reshape(embeddings.shape[0], *embeddings.shape[2:])

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in ("mean", "whitening"):
            setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.mean.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def by_position(embeddings: Tensor) -> Tensor:
    """(B, D, P) or (B, D, H, W) to (P, B, D)."""
    return embeddings.flatten(2).permute(2, 0, 1)


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
        own = None
        if self._gaussian.is_collecting:
            count, mean, scatter = self._gaussian.sums
            own = count, mean.cpu(), scatter.cpu()
        counts, means, scatters = zip(*(sums for sums in gather(own) if sums), strict=True)
        self._gaussian.merge_ranks(torch.tensor(counts), torch.stack(means), torch.stack(scatters))
        if not self._gaussian.sums[1].isfinite().all():
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
