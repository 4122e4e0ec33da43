"""Gaussians of normal features, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ccd_lightning.models.fitted import FittedModule

Batches = Callable[[], Iterator[Tensor]]
AddUp = Callable[[Tensor], Tensor]
NEGLIGIBLE = 1e-6  # share of the first component's variance


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


class LatentGaussian(nn.Module):
    """Centre and scale of normal images' latents, as IGD uses them (Chen, Tian et al., AAAI 2022).

    Args:
        latent_size: D.
        floor: Entries of the centre that are nearer to 0 are moved to this distance, on their side.
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
        """Estimates both from latents that are gone through twice.

            c = mean z,   sigma = mean max(1, |z - c|^2)

        The paper's text leaves open whether the maximum is taken of each distance, as here, or of their mean over a
        batch; only the former does not depend on batches.

        Args:
            latents: Gives batches (N, D) of this process's latents, the same each time.
            add_up: Adds a tensor of sums to those of the other processes.
        """
        centre = floor_centre(mean_over(latents, lambda z: z.sum(dim=0), self.centre, add_up), self.floor)
        scale = mean_over(latents, lambda z: (z - centre).square().sum(dim=1).clamp(min=1).sum(), self.scale, add_up)
        self.centre.copy_(centre)
        self.scale.copy_(scale)


def floor_centre(centre: Tensor, floor: float) -> Tensor:
    """Moves entries of (D,) that are nearer to 0 than `floor` to +-floor, on their side; 0 itself stays."""
    return torch.where(centre.abs() < floor, floor * centre.sign(), centre)


@torch.no_grad()
def whiten(layer: nn.Linear, features: Batches, add_up: AddUp = lambda total: total) -> None:
    """Makes a linear layer give leading principal components, each of mean 0 and variance 1.

    The squared length of what it gives is the squared Mahalanobis distance within these components. Those of no
    variance to speak of, such as those beyond the number of images, are always 0. Each component's largest weight is
    positive, so that nothing depends on how eigenvectors are found.

    Args:
        layer: From F features to D <= F components.
        features: Gives batches (N, F) of this process's features, the same each time; they are gone through twice.
        add_up: Adds a tensor of sums to those of the other processes.
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


def mean_over(batches: Batches, total: AddUp, like: Tensor, add_up: AddUp) -> Tensor:
    """A mean over the rows of all processes, in float64 where the device has it.

    Args:
        batches: Gives batches (N, D) of this process; there may be none.
        total: Sums up over the rows of a batch what the mean is of.
        like: Of the shape that `total` gives, on the batches' device.
        add_up: Adds a tensor of sums to those of the other processes.
    """
    exact = torch.float32 if like.device.type == "mps" else torch.float64
    sums, count = torch.zeros_like(like, dtype=exact), 0
    for batch in batches():
        sums, count = sums + total(batch.to(exact)), count + len(batch)
    counted = add_up(torch.cat([sums.flatten(), sums.new_tensor([count])]))
    return (counted[:-1] / counted[-1]).view_as(like)
