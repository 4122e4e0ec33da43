"""Gaussians of normal features, accumulated batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchGaussian(nn.Module):
    """One Gaussian a position, as PaDiM uses them (Defard et al., ICPR 2020, section III-B).

    Count, mean and scatter matrix are merged batch by batch in float64 (Chan et al., 1979), so that memory does not
    grow with the number of images, and neither the order nor the size of the batches matters. They are not kept in
    checkpoints; what `fit` makes of them is.

    Args:
        positions: P, the number of positions.
        channels: D, the length of an embedding.
        ridge: Added to the diagonal of the covariance.
        dtype: Of the fitted Gaussian; float32 halves the checkpoint.
    """

    mean: Tensor
    whitening: Tensor
    _count: Tensor
    _mean: Tensor
    _scatter: Tensor

    def __init__(
        self, positions: int, channels: int, ridge: float = 0.01, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.ridge = ridge
        self.positions = positions
        self.channels = channels
        # Scoring needs these two, and only these.
        self.register_buffer("mean", torch.zeros(positions, channels, dtype=dtype))
        self.register_buffer("whitening", torch.zeros(positions, channels, channels, dtype=dtype))
        self.reset()

    def reset(self) -> None:
        """Forgets what was accumulated."""
        size, width, device = self.positions, self.channels, self.mean.device
        sums = torch.zeros(size, width, dtype=torch.float64, device=device)
        self.register_buffer("_count", torch.zeros((), dtype=torch.float64, device=device), persistent=False)
        self.register_buffer("_mean", sums, persistent=False)
        self.register_buffer("_scatter", sums.new_zeros(0, width, width), persistent=False)

    @torch.no_grad()
    def update(self, embeddings: Tensor) -> None:
        """Adds the embeddings (B, D, P) or (B, D, H, W) of normal images."""
        batch = self._by_position(embeddings).to(torch.float64)  # (P, B, D)
        mean = batch.mean(dim=1)  # (P, D)
        centred = batch - mean[:, None]
        self._merge(batch.shape[1], mean, centred.transpose(1, 2) @ centred)

    def _merge(self, count: float, mean: Tensor, scatter: Tensor) -> None:
        if not len(self._scatter):  # allocated late: it is by far the largest tensor, and scoring needs none
            self._scatter = scatter.new_zeros(scatter.shape)
        total = self._count + count
        delta = mean - self._mean  # (P, D)
        weight = self._count * count / total
        self._scatter += scatter + weight * delta[:, :, None] * delta[:, None, :]
        self._mean += delta * (count / total)
        self._count = total

    @torch.no_grad()
    def merge_ranks(self, gathered: tuple[Tensor, Tensor, Tensor]) -> None:
        """Replaces this rank's sums by those of all ranks.

        Args:
            gathered: Counts (R,), means (R, P, D) and scatter matrices (R, P, D, D) of the R ranks.
        """
        self.reset()
        for count, mean, scatter in zip(*gathered, strict=True):
            self._merge(float(count), mean, scatter)

    @property
    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Count (), mean (P, D) and scatter matrix (P, D, D) of what this rank has seen."""
        return self._count, self._mean, self._scatter

    @torch.no_grad()
    def fit(self) -> None:
        """Turns the accumulated sums into mean and whitening matrix, and releases them.

        With the unbiased covariance S + ridge I = L L^T, the whitening matrix is L^-1.

        Raises:
            ValueError: If fewer than two images were seen.
        """
        if self._count < 2:
            raise ValueError(f"A covariance needs at least 2 images, got {int(self._count)}")
        covariance = self._scatter / (self._count - 1)
        covariance.diagonal(dim1=1, dim2=2).add_(self.ridge)
        factor = torch.linalg.cholesky(covariance)
        identity = torch.eye(self.channels, dtype=torch.float64, device=factor.device).expand_as(factor)
        self.mean.copy_(self._mean)
        self.whitening.copy_(torch.linalg.solve_triangular(factor, identity, upper=False))
        self.reset()

    def mahalanobis(self, embeddings: Tensor) -> Tensor:
        """Distances from the Gaussians.

        Args:
            embeddings: (B, D, P) or (B, D, H, W).

        Returns:
            (B, P) or (B, H, W), >= 0.
        """
        centred = self._by_position(embeddings).to(self.mean.dtype) - self.mean[:, None]  # (P, B, D)
        distance = (centred @ self.whitening.transpose(1, 2)).norm(dim=2)  # (P, B)
        return distance.T.reshape(len(embeddings), *embeddings.shape[2:])

    def _by_position(self, embeddings: Tensor) -> Tensor:
        flat = embeddings.flatten(2)
        if flat.shape[1:] != (self.channels, self.positions):
            raise ValueError(
                f"Expected embeddings of {self.channels} channels at {self.positions} positions, "
                f"got {tuple(flat.shape[1:])}"
            )
        return flat.permute(2, 0, 1)
