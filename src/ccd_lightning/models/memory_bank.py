"""Memory banks: normal features that are kept, and the distance to the nearest of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ccd_lightning.models.coreset import greedy_coreset
from ccd_lightning.models.fitted import FittedModule

SLACK = 2  # so many times the size of the bank is collected before it is reduced


class MemoryBank(FittedModule):
    """Normal features, by groups: the positions of an image, or one group of all (PatchCore, Roth et al., CVPR 2022).

    Features are added batch by batch. Whenever a group holds `SLACK` times as many as it may keep, it is reduced to a
    greedy coreset. So memory is bounded, and where no more than `size` features are seen, all are kept.

    Groups may see different numbers of features, as the positions of images of different shapes do. Rows of infinity
    then fill the smaller groups; no search finds them.

    Args:
        size: G k, the most features that are kept, in all groups together; None keeps every one.

    Attributes:
        features: (G, k, D), once fitted; all that scoring needs.
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
        self._complete = not bool(self._filled(self.features).any())

    @property
    def filled(self) -> Tensor | None:
        """Which rows only fill up their group, (G, k) bool; None if none do."""
        return None if self._complete else self._filled(self.features)

    @staticmethod
    def _filled(features: Tensor) -> Tensor:
        return features[:, :, :1].isposinf().any(dim=2)

    @property
    def is_collecting(self) -> bool:
        """Whether something was added since the last fit."""
        return bool(self._collected)

    def capacity(self, groups: int) -> int | None:
        """k, the most features that each of the groups keeps, at least 1; None where there is no limit."""
        return None if self.size is None else max(1, self.size // groups)

    @torch.no_grad()
    def update(self, features: Tensor, mask: Tensor | None = None) -> None:
        """Adds normal features.

        Args:
            features: (G, N, D).
            mask: Which of them to add, (G, N) bool; None for all.
        """
        added = features.clone() if mask is None else torch.where(mask[:, :, None], features, torch.inf)
        self._collected.append(added)
        capacity = self.capacity(len(features))
        if capacity is not None and sum(part.shape[1] for part in self._collected) > SLACK * capacity:
            self._collected = [self.collected()]

    def collected(self) -> Tensor:
        """What was added since the last fit, (G, n, D), reduced to as many as may be kept.

        Raises:
            ValueError: If nothing was.
        """
        if not self._collected:
            raise ValueError("No features were added")
        features = torch.cat(self._collected, dim=1)
        filled = self._filled(features)
        if filled.any():
            features, filled = _compact(features, filled)
        capacity = self.capacity(len(features))
        if capacity is None or features.shape[1] <= capacity:
            return features
        chosen = greedy_coreset(features, capacity, filled=filled if filled.any() else None)
        return _rows(features, chosen)

    def replace(self, features: Tensor) -> None:
        """Puts features (G, n, D) in the place of those that were added, as those of all ranks."""
        self._collected = [features]

    @torch.no_grad()
    def fit(self) -> None:
        """Turns what was added into the bank, and releases it."""
        self.features = self.collected().to(self.features).contiguous()
        self._complete = not bool(self._filled(self.features).any())
        self._collected = []


def _rows(features: Tensor, indices: Tensor) -> Tensor:
    """The rows (G, n, D) of features (G, k, D) at indices (G, n)."""
    return features.gather(1, indices[:, :, None].expand(-1, -1, features.shape[2]))


def _compact(features: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
    """Puts the rows that only fill up last, and leaves out those that no group needs."""
    most = int((~filled).sum(dim=1).max())
    order = filled.to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return _rows(features, order), filled.gather(1, order)


def nearest(queries: Tensor, bank: Tensor, count: int = 1, filled: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest features of a bank, group by group.

    Args:
        queries: (G, B, D).
        bank: (G, k, D), k > 0.
        count: n, how many; as many as there are where there are fewer.
        filled: Rows of the bank that are no features, (G, k) bool; None for none.

    Returns:
        Euclidean distances, rising, and indices in the bank; both (G, B, n). Where there are too few features, the
        distances are infinite.
    """
    count = min(count, bank.shape[1])
    finite, squares = search_terms(bank, filled)
    products = torch.baddbmm(squares[:, None], queries, finite.transpose(1, 2), alpha=-2)  # (G, B, k)
    indices = products.topk(count, dim=2, largest=False).indices if count > 1 else products.argmin(dim=2, keepdim=True)
    # Anew, from differences: those of the squares' expansion lose half of the digits near 0.
    found = bank.gather(1, indices.flatten(1)[:, :, None].expand(-1, -1, bank.shape[2])).view(*indices.shape, -1)
    distances = (queries[:, :, None] - found).norm(dim=3)
    return distances, indices


def search_terms(bank: Tensor, filled: Tensor | None) -> tuple[Tensor, Tensor]:
    """Features (G, k, D) that are finite, and their squared lengths (G, k), infinite where they only fill up."""
    if filled is None:
        return bank, bank.square().sum(dim=2)
    finite = torch.where(filled[:, :, None], 0, bank)
    return finite, torch.where(filled, torch.inf, finite.square().sum(dim=2))
