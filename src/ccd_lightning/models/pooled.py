"""Contributions of the positions of an image to a distance of the whole image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ccd_lightning.models.fitted import FittedModule


class PositionSums(NamedTuple):
    """Sums over the features of normal images at each position.

    Attributes:
        number: Number of images, (h, w) int64.
        total: Sum of their features, (D, h, w).
    """

    number: Tensor
    total: Tensor


class PositionMeans(FittedModule):
    """Mean features of normal images at each position, accumulated batch by batch.

    An image's vector f is the mean of its features f_p over the positions p, and mu is the mean of mu_p. Along a
    direction v,

        (f - mu) v = mean over p of (f_p - mu_p) v,

    so the terms on the right form a map whose mean is the left-hand side. With v = S^-1 (f - mu) / d, the left-hand
    side is the Mahalanobis distance d. Means are taken over content only. If the content differs between images, the
    two sides are only approximately equal.

    Attributes:
        means: Means mu_p after fitting, (D, h, w); infinite at positions that are content of no image.
    """

    means: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.empty(0, 0, 0))
        self._sums: PositionSums | None = None
        self._complete = True

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._complete = bool(self._found().all())

    def _found(self) -> Tensor:
        return ~self.means[:1].isposinf().any(dim=0)

    @property
    def known(self) -> Tensor | None:
        """Positions that have a mean, (h, w) bool; None if all have one."""
        return None if self._complete else self._found()

    @property
    def sums(self) -> PositionSums:
        """Sums since the last fit.

        Raises:
            ValueError: If no features were added.
        """
        if self._sums is None:
            raise ValueError("No features were seen")
        return self._sums

    @torch.no_grad()
    def update(self, features: Tensor, mask: Tensor | None = None) -> None:
        """Adds the features (B, D, h, w) of normal images, at the positions that a mask (B, h, w) keeps."""
        exact = torch.float32 if features.device.type == "mps" else torch.float64
        count = features.new_full(features.shape[2:], len(features), dtype=torch.int64)
        if mask is not None:
            features, count = torch.where(mask[:, None], features, 0), mask.sum(dim=0)
        self._add(PositionSums(count, features.sum(dim=0, dtype=exact)))

    def _add(self, new: PositionSums) -> None:
        old = self._sums
        self._sums = new if old is None else PositionSums(old.number + new.number, old.total + new.total)

    def merge_ranks(self, ranks: Iterable[PositionSums]) -> None:
        """Replaces this rank's sums with the sums of all ranks."""
        device, self._sums = self.sums.total.device, None
        for sums in ranks:
            self._add(PositionSums(*(part.to(device) for part in sums)))

    @torch.no_grad()
    def fit(self) -> None:
        """Computes the means from the sums, and releases the sums."""
        count, total = self.sums
        self._complete = bool((count > 0).all())
        means = total / count
        self.means = (means if self._complete else torch.where(count > 0, means, torch.inf)).to(self.means)
        self._sums = None

    def contributions(self, features: Tensor, direction: Tensor) -> Tensor:
        """Returns the contributions (f_p - mu_p) v of the positions along a direction.

        Args:
            features: Features f_p, (B, D, h, w).
            direction: Direction v, (B, D).

        Returns:
            Contributions (B, h, w) of either sign; 0 at positions without a mean.

        Raises:
            ValueError: If the shape of the features differs from that of the fit.
        """
        if features.shape[1:] != self.means.shape:
            raise ValueError(f"expected features {tuple(self.means.shape)}, got {tuple(features.shape[1:])}")
        differences = features - self.means
        if self.known is not None:
            differences = torch.where(self.known, differences, 0)
        return torch.einsum("bdhw,bd->bhw", differences, direction)
