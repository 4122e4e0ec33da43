"""What each position of an image adds to a distance that is one of the image as a whole."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ccd_lightning.models.fitted import FittedModule


class PositionMeans(FittedModule):
    """The mean features of normal images at each position, accumulated batch by batch.

    An image's vector f is the mean of its features f_p over the positions, mu that of mu_p. Along a direction v,

        (f - mu) v = mean over p of (f_p - mu_p) v,

    so that the right-hand side is a map of which the left-hand side is the mean. With v = S^-1 (f - mu) / d, the
    left-hand side is the Mahalanobis distance d.

    Attributes:
        means: mu_p, (D, h, w), once fitted.
    """

    means: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.empty(0, 0, 0))
        self._sums: tuple[int, Tensor] | None = None

    @property
    def sums(self) -> tuple[int, Tensor]:
        """Number and sum (D, h, w) of the images since the last fit.

        Raises:
            ValueError: If there were none.
        """
        if self._sums is None:
            raise ValueError("No features were seen")
        return self._sums

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Adds the features (B, D, h, w) of normal images."""
        exact = torch.float32 if features.device.type == "mps" else torch.float64
        self._add(len(features), features.sum(dim=0, dtype=exact))

    def _add(self, count: int, total: Tensor) -> None:
        seen, old = self._sums or (0, torch.zeros_like(total))
        self._sums = seen + count, old + total

    def merge_ranks(self, ranks: Iterable[tuple[int, Tensor]]) -> None:
        """Replaces this rank's sums by those of all ranks."""
        device, self._sums = self.sums[1].device, None
        for count, total in ranks:
            self._add(count, total.to(device))

    @torch.no_grad()
    def fit(self) -> None:
        """Turns the sums into means, and releases them."""
        count, total = self.sums
        self.means = (total / count).to(self.means)
        self._sums = None

    def contributions(self, features: Tensor, direction: Tensor) -> Tensor:
        """What positions add along a direction.

        Args:
            features: f_p, (B, D, h, w).
            direction: v, (B, D).

        Returns:
            (B, h, w), of either sign.

        Raises:
            ValueError: If these are not the positions of the fit.
        """
        if features.shape[1:] != self.means.shape:
            raise ValueError(f"expected features {tuple(self.means.shape)}, got {tuple(features.shape[1:])}")
        return torch.einsum("bdhw,bd->bhw", features - self.means, direction)
