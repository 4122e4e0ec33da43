"""Gaussians of normal features, accumulated batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ccd_lightning.models.fitted import FittedModule


class PatchGaussian(FittedModule):
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


def by_position(embeddings: Tensor) -> Tensor:
    """(B, D, P) or (B, D, H, W) to (P, B, D)."""
    return embeddings.flatten(2).permute(2, 0, 1)
