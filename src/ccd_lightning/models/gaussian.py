"""Gaussian distributions of normal features, accumulated batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ccd_lightning.models.fitted import FittedModule

HALVES = ("whitening_top", "whitening_bottom")  # buffers
MATRICES_PER_CHUNK = 256  # matrices that are factorised at a time, which limits memory


class Moments(NamedTuple):
    """Sums over the features x of each of P positions, which define their moments; all float64.

    Attributes:
        number: Number n of features, (P,). An image counts at the positions that are its content.
        mean: Mean mu, (P, D).
        scatter: Scatter matrix S, the sum of (x - mu) (x - mu)^T, (P, D, D).
        third: Sum of |x - mu|^2 (x - mu), (P, D).
        fourth: Sum of |x - mu|^4, (P,).
    """

    number: Tensor
    mean: Tensor
    scatter: Tensor
    third: Tensor
    fourth: Tensor

    def about(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the sums `third` and `fourth` about other means (P, D)."""
        shift = (self.mean - mean)[:, :, None]  # a, with x - mean = (x - mu) + a
        square, number = shift.square().sum(dim=1), self.number[:, None]  # (P, 1)
        trace = self.scatter.diagonal(dim1=1, dim2=2).sum(dim=1, keepdim=True)  # (P, 1)
        along = self.scatter @ shift  # (P, D, 1)
        third = self.third + 2 * along[:, :, 0] + (trace + number * square) * shift[:, :, 0]
        linear, quadratic = ((shift * part).sum(dim=1) for part in (self.third[:, :, None], along))
        fourth = 4 * quadratic + 4 * linear + 2 * square * trace + number * square.square()
        return third, self.fourth + fourth[:, 0]


class PatchGaussian(FittedModule):
    """One Gaussian per position, as in PaDiM (Defard et al., ICPR 2020, section III-B).

    Count, mean and scatter matrix are merged batch by batch in float64 (Chan et al., 1979). So memory does not grow
    with the number of images, and the result depends neither on the order nor on the size of the batches. Checkpoints
    do not store these sums, only the result of `fit`. The number of positions P and the embedding size D are taken from
    the first batch, or from the loaded state.

    A position that is content of fewer than two images has no Gaussian. Its whitening matrix and all distances there
    are 0.

    Args:
        ridge: Value added to the diagonal of the covariance.
        dtype: Data type of the fitted Gaussian; float32 halves the checkpoint.
        shrinkage: Whether the covariance is shrunk towards a multiple of the identity, with the Ledoit-Wolf (2004)
            estimate of the shrinkage. It is stronger the fewer features there are per channel.
    """

    mean: Tensor
    whitening_top: Tensor
    whitening_bottom: Tensor

    def __init__(self, ridge: float = 0.01, dtype: torch.dtype = torch.float32, shrinkage: bool = False) -> None:
        super().__init__()
        self.ridge = ridge
        self.shrinkage = shrinkage
        # Scoring needs only these. The two halves of the lower triangular whitening matrix leave out the quarter of it
        # that is 0, because scoring one image takes as long as reading the matrices from memory.
        self.register_buffer("mean", torch.empty(0, 0, dtype=dtype))  # (P, D)
        self.register_buffer("whitening_top", torch.empty(0, 0, 0, dtype=dtype))  # (P, D / 2, D / 2)
        self.register_buffer("whitening_bottom", torch.empty(0, 0, 0, dtype=dtype))  # (P, D / 2, D)
        self._moments: Moments | None = None
        self._complete = True

    @property
    def whitening(self) -> Tensor:
        """The whitening matrices L^-1, (P, D, D), which are lower triangular; 0 for positions without a Gaussian."""
        missing = self.whitening_bottom.shape[2] - self.whitening_top.shape[2]
        return torch.cat([functional.pad(self.whitening_top, (0, missing)), self.whitening_bottom], dim=1)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for half in HALVES:
            del destination[prefix + half]
        matrices = self.whitening
        rows, columns = torch.tril_indices(*matrices.shape[1:], device=matrices.device)
        destination[prefix + "whitening"] = matrices[:, rows, columns]  # the others are 0: halves the size

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        stored = state_dict.pop(prefix + "whitening", None)
        if stored is not None:
            matrices = _unpacked(stored) if stored.ndim == 2 else stored  # earlier versions stored full matrices
            state_dict.update((prefix + name, half) for name, half in zip(HALVES, _halves(matrices), strict=True))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._complete = bool(self._found().all())

    def _found(self) -> Tensor:
        return self.whitening_top.diagonal(dim1=1, dim2=2).any(dim=1)

    @property
    def known(self) -> Tensor | None:
        """Positions that have a Gaussian, (P,) bool; None if all have one."""
        return None if self._complete else self._found()

    @torch.no_grad()
    def update(self, embeddings: Tensor, mask: Tensor | None = None) -> None:
        """Adds the embeddings of normal images.

        Args:
            embeddings: Embeddings, (B, D, P) or (B, D, H, W).
            mask: Positions that count, (B, P) or (B, H, W) bool; None for all.
        """
        exact = "cpu" if embeddings.device.type == "mps" else embeddings.device  # MPS has no float64
        positions, images, channels = embeddings[0, 0].numel(), embeddings.shape[0], embeddings.shape[1]
        rows = torch.empty(positions, images + 1, channels, dtype=torch.float64, device=exact)
        batch = rows[:, :images].copy_(by_position(embeddings))  # (P, B, D); the last row is for the shift of means
        counts = None if mask is None else mask.flatten(1).T.to(exact)[:, :, None]  # (P, B, 1)
        if counts is None:
            number = torch.full_like(batch[:, 0, 0], images)  # (P,)
            mean = batch.mean(dim=1)  # (P, D)
        else:
            number = counts.sum(dim=1)[:, 0].to(batch.dtype)
            mean = torch.where(counts, batch, 0).sum(dim=1) / number.clamp(min=1)[:, None]
        batch -= mean[:, None]
        if counts is not None:
            batch.masked_fill_(~counts, 0)

        def about(other: Tensor) -> tuple[Tensor, Tensor]:
            shifted = batch + (mean - other)[:, None]
            shifted = shifted if counts is None else torch.where(counts, shifted, 0)
            squares = shifted.square().sum(dim=2, keepdim=True)  # (P, B, 1)
            return (squares * shifted).sum(dim=1), squares.square().sum(dim=(1, 2))

        self._add(number, mean, rows, about)

    def _merge(self, new: Moments) -> None:
        if self._moments is None:
            self._moments = Moments(*(part.clone() for part in new))
            return
        self._add(new.number, new.mean, torch.empty_like(new.mean)[:, None], new.about)
        self._moments.scatter.add_(new.scatter)  # only now, because `_add` computes moments from the old scatter

    def _add(
        self, number: Tensor, mean: Tensor, rows: Tensor, about: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> None:
        """Adds images to the sums.

        Args:
            number: Number of images at each position, (P,).
            mean: Mean features of these images, (P, D).
            rows: Features minus these means, (P, R, D), to add to the scatter. The last row is overwritten with the
                term for the shift of the mean.
            about: Function from other means to the sums `third` and `fourth` of these images about them.
        """
        old = self._moments or _nothing(mean)
        total = (old.number + number).clamp(min=1)
        delta = mean - old.mean
        merged = old.mean + delta * (number / total)[:, None]
        third, fourth = old.third, old.fourth
        if self.shrinkage:
            third, fourth = (one + other for one, other in zip(old.about(merged), about(merged), strict=True))
        rows[:, -1] = delta * (old.number * number / total).sqrt()[:, None]
        scatter = old.scatter.baddbmm_(rows.transpose(1, 2), rows)  # in place, because it is large
        self._moments = Moments(old.number + number, merged, scatter, third, fourth)

    @property
    def is_collecting(self) -> bool:
        """Whether embeddings were added since the last fit."""
        return self._moments is not None

    @property
    def moments(self) -> Moments:
        """Sums since the last fit.

        Raises:
            ValueError: If no embeddings were added.
        """
        if self._moments is None:
            raise ValueError("No embeddings were seen")
        return self._moments

    def clear(self) -> None:
        """Discards the sums since the last fit."""
        self._moments = None

    @torch.no_grad()
    def merge_ranks(self, ranks: Iterable[Moments]) -> None:
        """Replaces this rank's sums with the merged sums of all ranks."""
        self._moments = None
        for moments in ranks:
            self._merge(moments)

    @torch.no_grad()
    def fit(self) -> None:
        """Computes means and whitening matrices from the accumulated sums, and releases the sums.

        With the unbiased covariance S and S + ridge I = L L^T, the whitening matrix is L^-1.

        Raises:
            ValueError: If no position is content of at least two images.
        """
        moments = self.moments
        found = moments.number >= 2
        if not found.any():
            raise ValueError(f"A covariance needs at least 2 images, got {moments.number.max():.0f}")
        self._complete = bool(found.all())
        self.mean = moments.mean.to(self.mean)
        halves = [self.mean.new_empty(half.shape) for half in _halves(moments.scatter)]
        for first in range(0, len(found), MATRICES_PER_CHUNK):
            some = slice(first, first + MATRICES_PER_CHUNK)
            matrices = self._inverse_factors(Moments(*(part[some] for part in moments)))
            for half, values in zip(halves, _halves(matrices), strict=True):
                half[some] = values
        self.whitening_top, self.whitening_bottom = halves
        self._moments = None

    def _inverse_factors(self, moments: Moments) -> Tensor:
        """Returns L^-1 of some positions, (P, D, D) float64; 0 for positions without a Gaussian."""
        unknown = moments.number < 2
        number = (moments.number - 1).clamp(min=1)[:, None, None]
        covariance = shrunk_covariance(moments) if self.shrinkage else moments.scatter / number
        if not self._complete:
            covariance[unknown] = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
        covariance.diagonal(dim1=1, dim2=2).add_(self.ridge)
        factor = torch.linalg.cholesky(covariance)
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device).expand_as(factor)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        known: Tensor = inverse if self._complete else inverse.masked_fill_(unknown[:, None, None], 0)
        return known

    def whiten(self, embeddings: Tensor) -> Tensor:
        """Whitens embeddings: normal embeddings get mean 0 and variance 1 in every direction.

        Args:
            embeddings: Embeddings, (B, D, P) or (B, D, H, W).

        Returns:
            Whitened embeddings (P, B, D); their norms are the Mahalanobis distances.

        Raises:
            ValueError: If the number of positions or channels differs from that of the fit.
        """
        batch = by_position(embeddings).to(self.mean.dtype)  # (P, B, D)
        if (batch.shape[0], batch.shape[2]) != tuple(self.mean.shape):
            raise ValueError(
                f"Expected embeddings of {self.mean.shape[1]} channels at {self.mean.shape[0]} positions, "
                f"got {batch.shape[2]} at {batch.shape[0]}"
            )
        centred, top = batch - self.mean[:, None], self.whitening_top.transpose(1, 2)
        bottom = self.whitening_bottom.transpose(1, 2)
        return torch.cat([centred[:, :, : top.shape[1]] @ top, centred @ bottom], dim=2)

    def mahalanobis(self, embeddings: Tensor) -> Tensor:
        """Returns the Mahalanobis distances; arguments and errors are those of `whiten`.

        Returns:
            Distances (B, P) or (B, H, W), >= 0.
        """
        distance: Tensor = self.whiten(embeddings).norm(dim=2)  # (P, B)
        return distance.T.reshape(embeddings.shape[0], *embeddings.shape[2:])


def _nothing(mean: Tensor) -> Moments:
    """Returns the sums of zero images, with the shape and dtype of means (P, D)."""
    positions, channels = mean.shape
    scatter = mean.new_zeros(positions, channels, channels)
    return Moments(
        mean.new_zeros(positions), torch.zeros_like(mean), scatter, torch.zeros_like(mean), mean.new_zeros(positions)
    )


def _halves(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the top and the bottom rows of lower triangular matrices (P, D, D), without the top's columns of 0."""
    half = -(-matrices.shape[1] // 2)
    return matrices[:, :half, :half], matrices[:, half:]


def _unpacked(packed: Tensor) -> Tensor:
    """Unpacks lower triangles (P, D (D + 1) / 2), stored row by row, into matrices (P, D, D).

    Raises:
        RuntimeError: If the length is not that of a triangle.
    """
    channels = (math.isqrt(8 * packed.shape[1] + 1) - 1) // 2
    if channels * (channels + 1) // 2 != packed.shape[1]:
        raise RuntimeError(f"size mismatch for whitening: {packed.shape[1]} numbers are no triangle")
    matrices = packed.new_zeros(len(packed), channels, channels)
    rows, columns = torch.tril_indices(channels, channels, device=packed.device)
    matrices[:, rows, columns] = packed
    return matrices


def by_position(embeddings: Tensor) -> Tensor:
    """Rearranges embeddings (B, D, P) or (B, D, H, W) to (P, B, D)."""
    return embeddings.flatten(2).permute(2, 0, 1)


def shrunk_covariance(moments: Moments) -> Tensor:
    """Returns covariances with Ledoit-Wolf shrinkage (J. Multivariate Analysis, 2004, section 3.3).

    They are (1 - a) S / n + a m I, with the shrinkage a and the mean variance m of the channels.

    Args:
        moments: Moments of n images, with all moments. For n < 2 the result is meaningless.

    Returns:
        Covariances (P, D, D).
    """
    channels, number = moments.mean.shape[1], moments.number.clamp(min=1)
    covariance = moments.scatter / number[:, None, None]
    variance = covariance.diagonal(dim1=1, dim2=2).mean(dim=1)  # (P,)
    squares = covariance.square().sum(dim=(1, 2))
    distance = squares - channels * variance.square()  # from m I; this and the error are D times those of the paper
    error = (moments.fourth / number - squares) / number
    share = (error.clamp(min=0).minimum(distance) / distance.clamp(min=torch.finfo(distance.dtype).tiny))[:, None]
    covariance.mul_(1 - share[:, :, None]).diagonal(dim1=1, dim2=2).add_(share * variance[:, None])
    return covariance
