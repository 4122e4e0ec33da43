"""How features of an image are compared with a memory bank: position by position, or as one vector."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ccd_lightning.models.content import masked_mean
from ccd_lightning.models.memory_bank import MemoryBank, nearest, search_terms
from ccd_lightning.models.pooled import PositionMeans

AT_ONCE = 2**24  # so many numbers are brought together at a time, which bounds memory ...
USUAL_BATCH = 32  # ... for batches of so many images


class Comparison(nn.Module, ABC):
    """Collects features of normal images, and compares those of others with them.

    Args:
        size: The most features that are kept.
    """

    def __init__(self, size: int | None) -> None:
        super().__init__()
        self.bank = MemoryBank(size)

    @abstractmethod
    def update(self, features: Tensor, mask: Tensor | None = None) -> None:
        """Adds the features of normal images.

        Args:
            features: (B, D, h, w).
            mask: Which positions are content, (B, h, w) bool; None for all.
        """

    def fit(self) -> None:
        """Turns what was added into what scoring needs."""
        self.bank.fit()

    @abstractmethod
    def known(self, height: int, width: int) -> Tensor | None:
        """Which of h x w positions can be compared with something, (h, w) bool; None if all can."""

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compares the features of images.

        Args:
            features: (B, D, h, w).
            mask: Which positions count, (B, h, w) bool; None for all. The distances at others mean nothing.

        Returns:
            Distances at the positions (B, h, w), and for each image what its score is multiplied by, or is, or None.
        """


class PatchComparison(Comparison):
    """Each position with the nearest feature that is kept of positions around it, or of all (Roth et al., CVPR 2022).

    Args:
        size: The most features that are kept, of all positions together.
        window: How many positions away, along both axes, a feature may be that is compared with; None for any.
        reweight: b, how many neighbours of the nearest feature say how far the score of an image is trusted, by
            equation 7 of the paper; 0 leaves it out.
    """

    def __init__(self, size: int | None, window: int | None, reweight: int) -> None:
        super().__init__(size)
        self.window = window
        self.reweight = reweight

    def update(self, features: Tensor, mask: Tensor | None = None) -> None:
        """Adds the features (B, D, h, w) of normal images at the positions that a mask (B, h, w) keeps."""
        positions = features.flatten(2).permute(2, 0, 1)  # (P, B, D)
        kept = None if mask is None else mask.flatten(1).T  # (P, B)
        if self.window is not None:
            self.bank.update(positions, kept)
        else:
            self.bank.update((positions.flatten(0, 1) if kept is None else positions[kept])[None])

    def known(self, height: int, width: int) -> Tensor | None:
        """Where some feature is within the window."""
        if self.window is None or self.bank.filled is None or len(self.bank.features) != height * width:
            return None
        found = ~self.bank.filled.all(dim=1)  # (P,)
        return found[neighbourhood(height, width, self.window)[0].to(found.device)].any(dim=1).view(height, width)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Distances at the positions, and the weight of each image's score."""
        images, _, height, width = features.shape
        queries = features.flatten(2).permute(2, 0, 1)  # (P, B, D)
        if self.window is None:
            distances, groups, chosen = self._search_all(queries, height)
        else:
            distances, groups, chosen = self._search_around(queries, self.window, height, width)
        maps = distances.T.reshape(images, height, width)
        if not self.reweight:
            return maps, None
        counted = distances if mask is None else torch.where(mask.expand_as(maps).flatten(1).T, distances, 0)
        return maps, self._weights(queries, counted, groups, chosen)

    def _search_all(self, queries: Tensor, height: int) -> tuple[Tensor, Tensor, Tensor]:
        bank, rows, filled = self._whole(), queries.view(height, -1, *queries.shape[1:]), self._all_filled()
        found = [nearest(row.flatten(0, 1)[None], bank, 1, filled) for row in rows]  # row by row, which bounds memory
        distances, chosen = (torch.cat(parts, dim=1).view(queries.shape[:2]) for parts in zip(*found, strict=True))
        return distances, chosen // self.bank.features.shape[1], chosen % self.bank.features.shape[1]

    def _whole(self) -> Tensor:
        """The bank as one group, (1, G k, D)."""
        return self.bank.features.flatten(0, 1)[None]

    def _all_filled(self) -> Tensor | None:
        return None if self.bank.filled is None else self.bank.filled.flatten()[None]

    def _search_around(self, queries: Tensor, window: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        bank = self.bank.features
        if len(bank) != height * width or queries.shape[2] != bank.shape[2]:
            raise ValueError(
                f"expected {bank.shape[2]} features at {len(bank)} positions, got {queries.shape[2]} at {len(queries)}"
            )
        around, inside = (part.to(queries.device) for part in neighbourhood(height, width, window))  # (P, n)
        places, opposite = around.shape[1], torch.arange(around.shape[1] - 1, -1, -1, device=queries.device)
        least, chosen = self._search_groups(queries, around)
        # Position p is the neighbour of p + d, in its direction -d: the last but as many as d is in p's.
        least = least[around, opposite].masked_fill(~inside[:, :, None], torch.inf)  # (P, n, B)
        direction = least.argmin(dim=1)  # (P, B)
        groups = around.gather(1, direction)
        images = torch.arange(queries.shape[1], device=queries.device)
        chosen = chosen[groups, places - 1 - direction, images]
        return (queries - bank[groups, chosen]).norm(dim=2), groups, chosen

    def _search_groups(self, queries: Tensor, around: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest feature of each group to each of the queries (P, B, D) around it (P, n).

        Queries are brought to the groups, not groups to the queries: the bank, which is larger, is read only once.

        Returns:
            Squared distances, without the queries' squared lengths, and indices in the groups, both (P, n, B).
        """
        bank, lengths = search_terms(self.bank.features, self.bank.filled)
        at_once = max(1, AT_ONCE // (around.shape[1] * USUAL_BATCH * max(bank.shape[1:])))
        found = []
        parts = (torch.split(part, at_once) for part in (around, bank, lengths))
        for near, group, squares in zip(*parts, strict=True):
            brought = queries[near].flatten(1, 2)  # (g, n B, D)
            products = torch.baddbmm(squares[:, None], brought, group.transpose(1, 2), alpha=-2)  # (g, n B, k)
            found.append([part.view(*near.shape, -1) for part in products.min(dim=2)])
        least, chosen = (torch.cat(parts) for parts in zip(*found, strict=True))
        return least, chosen

    def _weights(self, queries: Tensor, distances: Tensor, groups: Tensor, chosen: Tensor) -> Tensor:
        """1 - exp d(q, m) / sum of exp d(q, m') over the b neighbours m' of m, with m nearest to the farthest q."""
        farthest, bank = distances.argmax(dim=0)[None], self.bank.features  # (1, B)
        query = queries.gather(0, farthest[:, :, None].expand(-1, -1, queries.shape[2]))[0]  # (B, D)
        group, index = groups.gather(0, farthest)[0], chosen.gather(0, farthest)[0]  # (B,)
        match = bank[group, index]  # (B, D)
        if self.bank.filled is not None:
            match = match.nan_to_num(posinf=0.0)  # of an image whose positions all mean nothing
        if self.window is None:
            whole, filled = self._whole(), self._all_filled()
            support = whole[0][nearest(match[None], whole, self.reweight, filled)[1][0]]  # (B, b, D), itself first
        else:
            own = bank[group]  # (B, k, D)
            filled = None if self.bank.filled is None else self.bank.filled[group]
            indices = nearest(match[:, None], own, self.reweight, filled)[1][:, 0]  # (B, b)
            support = own.gather(1, indices[:, :, None].expand(-1, -1, own.shape[2]))
        lengths = (query[:, None] - support).norm(dim=2)
        if self.bank.filled is not None:  # there may be fewer than b
            lengths = torch.where(lengths.isinf(), -torch.inf, lengths)
        weights: Tensor = 1 - torch.softmax(lengths, dim=1)[:, 0]
        return weights


class PooledComparison(Comparison):
    """The mean of an image's features with those of the nearest normal images.

    The map says what each position adds to the difference from the mean of these.

    Args:
        size: The most images that are kept.
        neighbours: k, over how many nearest images the distance is averaged.
    """

    def __init__(self, size: int | None, neighbours: int) -> None:
        super().__init__(size)
        self.neighbours = neighbours
        self.positions = PositionMeans()

    def update(self, features: Tensor, mask: Tensor | None = None) -> None:
        """Adds the features (B, D, h, w) of normal images at the positions that a mask (B, h, w) keeps."""
        self.bank.update(masked_mean(features, mask)[None])
        self.positions.update(features, mask)

    def known(self, height: int, width: int) -> Tensor | None:
        """Where normal images have a mean."""
        return self.positions.known

    def fit(self) -> None:
        """Turns what was added into what scoring needs."""
        super().fit()
        self.positions.fit()

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What the positions add, and the distance of each image."""
        vectors = masked_mean(features, mask)  # (B, D)
        distances, indices = nearest(vectors[None], self.bank.features, self.neighbours)  # (1, B, k)
        direction = vectors - self.bank.features[0][indices[0]].mean(dim=1)
        direction = torch.nn.functional.normalize(direction, dim=1)
        return self.positions.contributions(features, direction).clamp(min=0), distances[0].mean(dim=1)


def neighbourhood(height: int, width: int, window: int) -> tuple[Tensor, Tensor]:
    """For each position of a grid, those around it, in directions that lie opposite each other from both ends.

    Args:
        height: h.
        width: w.
        window: How far away along each axis.

    Returns:
        Indices (h w, n), n being (2 window + 1)^2, or less where that reaches every position; and which of them there
        are, of the same shape, bool: beyond the border, indices are those at the border once more.
    """
    window = min(window, max(height, width) - 1)  # which reaches every position
    steps = torch.arange(-window, window + 1)
    places = [torch.arange(length)[:, None] + steps for length in (height, width)]  # (h, s), (w, s)
    inside = [(place >= 0) & (place < length) for place, length in zip(places, (height, width), strict=True)]
    rows, columns = (place.clamp(0, length - 1) for place, length in zip(places, (height, width), strict=True))
    indices = rows[:, None, :, None] * width + columns[None, :, None, :]
    there = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    return indices.reshape(height * width, -1), there.reshape(height * width, -1)
