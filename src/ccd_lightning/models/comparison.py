"""Compares the features of an image with a memory bank: position by position, or as one vector."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ccd_lightning.models.content import masked_mean
from ccd_lightning.models.memory_bank import MemoryBank, nearest, search_terms
from ccd_lightning.models.pooled import PositionMeans

CHUNK_SIZE = 2**24  # numbers per intermediate tensor, which limits memory ...
USUAL_BATCH = 32  # ... for batches of this many images


class Comparison(nn.Module, ABC):
    """Base class: collects the features of normal images and compares those of other images with them.

    Args:
        size: Maximum number of features that are kept; None keeps all.
    """

    def __init__(self, size: int | None) -> None:
        super().__init__()
        self.bank = MemoryBank(size)

    @abstractmethod
    def update(self, features: Tensor, mask: Tensor | None = None) -> None:
        """Adds the features of normal images.

        Args:
            features: Features, (B, D, h, w).
            mask: Positions that are content, (B, h, w) bool; None for all.
        """

    def fit(self) -> None:
        """Fits the comparison to the features that were added."""
        self.bank.fit()

    @abstractmethod
    def known(self, height: int, width: int) -> Tensor | None:
        """Returns which of the h x w positions have features to compare with, (h, w) bool; None if all have."""

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compares the features of images with those of normal images.

        Args:
            features: Features, (B, D, h, w).
            mask: Positions that count, (B, h, w) bool; None for all. Distances at other positions are meaningless.

        Returns:
            Distances at the positions, (B, h, w); and (B,) or None, which depends on the comparison: a weight that
            multiplies the score of each image, or the score itself.
        """


class PatchComparison(Comparison):
    """Compares each position with the nearest feature in its neighbourhood, or in the bank (Roth et al., CVPR 2022).

    Args:
        size: Maximum number of features that are kept, over all positions; None keeps all.
        window: Maximum distance of a compared feature along each axis, in positions; None compares with all positions.
        reweight: Number b of neighbours of the nearest feature that are used to reweight the image score by equation 7
            of the paper; 0 disables the reweighting.
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
        """Returns the positions with at least one feature within the window."""
        if self.window is None or self.bank.padding is None or len(self.bank.features) != height * width:
            return None
        found = ~self.bank.padding.all(dim=1)  # (P,)
        return found[neighbourhood(height, width, self.window)[0].to(found.device)].any(dim=1).view(height, width)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Returns the distances at the positions, and the weights of the image scores (None without reweighting)."""
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
        bank, rows, padding = self._whole(), queries.view(height, -1, *queries.shape[1:]), self._all_padding()
        found = [nearest(row.flatten(0, 1)[None], bank, 1, padding) for row in rows]  # row by row to limit memory
        distances, chosen = (torch.cat(parts, dim=1).view(queries.shape[:2]) for parts in zip(*found, strict=True))
        return distances, chosen // self.bank.features.shape[1], chosen % self.bank.features.shape[1]

    def _whole(self) -> Tensor:
        """Returns the bank as one group, (1, G k, D)."""
        return self.bank.features.flatten(0, 1)[None]

    def _all_padding(self) -> Tensor | None:
        return None if self.bank.padding is None else self.bank.padding.flatten()[None]

    def _search_around(self, queries: Tensor, window: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        bank = self.bank.features
        if len(bank) != height * width or queries.shape[2] != bank.shape[2]:
            raise ValueError(
                f"expected {bank.shape[2]} features at {len(bank)} positions, got {queries.shape[2]} at {len(queries)}"
            )
        around, inside = (part.to(queries.device) for part in neighbourhood(height, width, window))  # (P, n)
        count, opposite = around.shape[1], torch.arange(around.shape[1] - 1, -1, -1, device=queries.device)
        least, chosen = self._search_groups(queries, around)
        # Position p is the neighbour of p + d in direction -d. Opposite directions have mirrored indices.
        least = least[around, opposite].masked_fill(~inside[:, :, None], torch.inf)  # (P, n, B)
        direction = least.argmin(dim=1)  # (P, B)
        groups = around.gather(1, direction)
        images = torch.arange(queries.shape[1], device=queries.device)
        chosen = chosen[groups, count - 1 - direction, images]
        return (queries - bank[groups, chosen]).norm(dim=2), groups, chosen

    def _search_groups(self, queries: Tensor, around: Tensor) -> tuple[Tensor, Tensor]:
        """Finds the nearest feature in each group for the queries at the positions around it.

        The queries are gathered for each group instead of the groups for each query, so the larger bank is read once.

        Args:
            queries: Features of the images, (P, B, D).
            around: Indices of the positions around each group, (P, n).

        Returns:
            Squared distances without the squared norms of the queries, and indices in the groups, both (P, n, B).
        """
        bank, lengths = search_terms(self.bank.features, self.bank.padding)
        groups_per_chunk = max(1, CHUNK_SIZE // (around.shape[1] * USUAL_BATCH * max(bank.shape[1:])))
        found = []
        parts = (torch.split(part, groups_per_chunk) for part in (around, bank, lengths))
        for near, group, squares in zip(*parts, strict=True):
            brought = queries[near].flatten(1, 2)  # (g, n B, D)
            products = torch.baddbmm(squares[:, None], brought, group.transpose(1, 2), alpha=-2)  # (g, n B, k)
            found.append([part.view(*near.shape, -1) for part in products.min(dim=2)])
        least, chosen = (torch.cat(parts) for parts in zip(*found, strict=True))
        return least, chosen

    def _weights(self, queries: Tensor, distances: Tensor, groups: Tensor, chosen: Tensor) -> Tensor:
        """Computes the score weights of equation 7.

        The weight is 1 - exp d(q, m) / sum of exp d(q, m') over the b neighbours m' of m, where q is the query with the
        largest distance and m its nearest feature.

        Args:
            queries: Features of the images, (P, B, D).
            distances: Distances to the nearest features, (P, B).
            groups: Groups of the nearest features, (P, B).
            chosen: Indices of the nearest features in their groups, (P, B).

        Returns:
            Weights (B,).
        """
        farthest, bank = distances.argmax(dim=0)[None], self.bank.features  # (1, B)
        query = queries.gather(0, farthest[:, :, None].expand(-1, -1, queries.shape[2]))[0]  # (B, D)
        group, index = groups.gather(0, farthest)[0], chosen.gather(0, farthest)[0]  # (B,)
        match = bank[group, index]  # (B, D)
        if self.bank.padding is not None:
            match = match.nan_to_num(posinf=0.0)  # for an image in which no position counts
        if self.window is None:
            whole, padding = self._whole(), self._all_padding()
            support = whole[0][nearest(match[None], whole, self.reweight, padding)[1][0]]  # (B, b, D), itself first
        else:
            own = bank[group]  # (B, k, D)
            padding = None if self.bank.padding is None else self.bank.padding[group]
            indices = nearest(match[:, None], own, self.reweight, padding)[1][:, 0]  # (B, b)
            support = own.gather(1, indices[:, :, None].expand(-1, -1, own.shape[2]))
        lengths = (query[:, None] - support).norm(dim=2)
        if self.bank.padding is not None:  # there may be fewer than b
            lengths = torch.where(lengths.isinf(), -torch.inf, lengths)
        weights: Tensor = 1 - torch.softmax(lengths, dim=1)[:, 0]
        return weights


class PooledComparison(Comparison):
    """Compares the mean of an image's features with the means of the nearest normal images.

    The map shows how much each position contributes to the difference from the average of these means.

    Args:
        size: Maximum number of images that are kept; None keeps all.
        neighbours: Number k of nearest images over which the distance is averaged.
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
        """Returns the positions for which normal images have a mean."""
        return self.positions.known

    def fit(self) -> None:
        """Fits the comparison to the features that were added."""
        super().fit()
        self.positions.fit()

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Returns the contributions of the positions (B, h, w), and the distances of the images (B,)."""
        vectors = masked_mean(features, mask)  # (B, D)
        distances, indices = nearest(vectors[None], self.bank.features, self.neighbours)  # (1, B, k)
        direction = vectors - self.bank.features[0][indices[0]].mean(dim=1)
        direction = torch.nn.functional.normalize(direction, dim=1)
        return self.positions.contributions(features, direction).clamp(min=0), distances[0].mean(dim=1)


def neighbourhood(height: int, width: int, window: int) -> tuple[Tensor, Tensor]:
    """Returns the neighbours of each position of a grid.

    Neighbours are ordered such that directions i and n - 1 - i are opposite.

    Args:
        height: Number of rows h.
        width: Number of columns w.
        window: Maximum distance along each axis, in positions.

    Returns:
        Indices (h w, n) with n = (2 window + 1)^2, or fewer if a smaller window already covers the grid; and a bool
        tensor of the same shape that is False beyond the border, where border indices are repeated.
    """
    window = min(window, max(height, width) - 1)  # this already covers the grid
    steps = torch.arange(-window, window + 1)
    positions = [torch.arange(length)[:, None] + steps for length in (height, width)]  # (h, s), (w, s)
    inside = [
        (position >= 0) & (position < length) for position, length in zip(positions, (height, width), strict=True)
    ]
    rows, columns = (position.clamp(0, length - 1) for position, length in zip(positions, (height, width), strict=True))
    indices = rows[:, None, :, None] * width + columns[None, :, None, :]
    there = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    return indices.reshape(height * width, -1), there.reshape(height * width, -1)
