"""Memory banks: stored normal features, and the distances to the nearest ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccd_lightning.models.coreset import greedy_coreset
from ccd_lightning.models.fitted import FittedModule

SLACK = 2  # features are collected up to this multiple of the bank's size before they are reduced


class MemoryBank(FittedModule):
    """Memory bank of normal features, in groups (PatchCore, Roth et al., CVPR 2022).

    There is one group per position of an image, or a single group for all positions.

    Features are added batch by batch. When a group exceeds `SLACK` times its capacity, it is reduced to a greedy
    coreset. So memory is bounded, and if no more than `size` features are added, all are kept.

    Groups may have different numbers of features, for example if images have different shapes. Smaller groups are then
    padded with rows of infinity, which no search returns.

    Args:
        size: Maximum number G k of features over all groups; None keeps all.

    Attributes:
        features: Features (G, k, D) after fitting; scoring needs nothing else.
    """

    features: Tensor

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("features", torch.empty(0, 0, 0))
        self._collected: list[Tensor] = []
        self._complete = True

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._complete = not bool(self._padding(self.features).any())

    @property
    def padding(self) -> Tensor | None:
        """Rows that only pad their group, (G, k) bool; None if there are none."""
        return None if self._complete else self._padding(self.features)

    @staticmethod
    def _padding(features: Tensor) -> Tensor:
        return features[:, :, :1].isposinf().any(dim=2)

    @property
    def is_collecting(self) -> bool:
        """Whether features were added since the last fit."""
        return bool(self._collected)

    def capacity(self, groups: int) -> int | None:
        """Returns the maximum number k >= 1 of features per group; None if there is no limit."""
        return None if self.size is None else max(1, self.size // groups)

    @torch.no_grad()
    def update(self, features: Tensor, mask: Tensor | None = None) -> None:
        """Adds normal features.

        Args:
            features: Features, (G, N, D).
            mask: Features to add, (G, N) bool; None for all.
        """
        added = features.clone() if mask is None else torch.where(mask[:, :, None], features, torch.inf)
        self._collected.append(added)
        capacity = self.capacity(len(features))
        if capacity is not None and sum(part.shape[1] for part in self._collected) > SLACK * capacity:
            self._collected = [self.collected()]

    def collected(self) -> Tensor:
        """Returns the features (G, n, D) added since the last fit, reduced to the capacity.

        Raises:
            ValueError: If no features were added.
        """
        if not self._collected:
            raise ValueError("No features were added")
        features = torch.cat(self._collected, dim=1)
        padding = self._padding(features)
        if padding.any():
            features, padding = _compact(features, padding)
        capacity = self.capacity(len(features))
        if capacity is None or features.shape[1] <= capacity:
            return features
        chosen = greedy_coreset(features, capacity, padding=padding if padding.any() else None)
        return _rows(features, chosen)

    def replace(self, features: Tensor) -> None:
        """Replaces the added features with the features (G, n, D), for example those of all ranks."""
        self._collected = [features]

    @torch.no_grad()
    def fit(self) -> None:
        """Builds the bank from the added features, and releases them."""
        self.features = self.collected().to(self.features).contiguous()
        self._complete = not bool(self._padding(self.features).any())
        self._collected = []


def _rows(features: Tensor, indices: Tensor) -> Tensor:
    """Returns the rows (G, n, D) of features (G, k, D) at indices (G, n)."""
    return features.gather(1, indices[:, :, None].expand(-1, -1, features.shape[2]))


def _compact(features: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
    """Moves the padding rows to the end, and drops those that no group needs."""
    most = int((~padding).sum(dim=1).max())
    order = padding.to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return _rows(features, order), padding.gather(1, order)


def nearest(queries: Tensor, bank: Tensor, count: int = 1, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Finds the nearest features of a bank, group by group.

    Args:
        queries: Query features, (G, B, D).
        bank: Features of the bank, (G, k, D), k > 0.
        count: Number n of nearest features, reduced to k if it is larger.
        padding: Padding rows of the bank, (G, k) bool; None if there are none.

    Returns:
        Euclidean distances in ascending order, and indices in the bank; both (G, B, n). If a group has fewer than n
        features, the remaining distances are infinite.
    """
    count = min(count, bank.shape[1])
    finite, squares = search_terms(bank, padding)
    products = torch.baddbmm(squares[:, None], queries, finite.transpose(1, 2), alpha=-2)  # (G, B, k)
    indices = products.topk(count, dim=2, largest=False).indices if count > 1 else products.argmin(dim=2, keepdim=True)
    # Recomputed from differences, because the expanded squares lose half of the digits near 0.
    found = bank.gather(1, indices.flatten(1)[:, :, None].expand(-1, -1, bank.shape[2])).view(*indices.shape, -1)
    distances = (queries[:, :, None] - found).norm(dim=3)
    return distances, indices


def search_terms(bank: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns finite features (G, k, D), and their squared norms (G, k), which are infinite for padding rows."""
    if padding is None:
        return bank, bank.square().sum(dim=2)
    finite = torch.where(padding[:, :, None], 0, bank)
    return finite, torch.where(padding, torch.inf, finite.square().sum(dim=2))
