"""Greedy coresets: features chosen so that every other one is near a chosen one (Sener and Savarese, ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

PROJECTED = 128  # dimensions of the random projection in which a coreset is chosen
LAST = -1e30  # lower than any distance, even after rounding
PAIRED = 4096  # groups up to this size use the distances of all pairs, larger ones are processed in blocks
PAIRS = 2**24  # pairwise distances held in memory at a time
BLOCK = 1024  # features of a large group that are updated together
CENTRES = 4096  # chosen features that they are compared with at a time


@torch.no_grad()
def greedy_coreset(features: Tensor, count: int, dimensions: int = PROJECTED, padding: Tensor | None = None) -> Tensor:
    """Selects a coreset with the k-center greedy algorithm.

    The first feature is the one farthest from the mean. Each next feature is the one farthest from all chosen ones. If
    features have more than `dimensions` dimensions, distances are computed in a fixed random projection.

    Args:
        features: Features of G groups, (G, N, D). Each group is processed independently.
        count: Number k of features to choose from each group, at most N.
        dimensions: Number of dimensions of the projection.
        padding: Padding rows that are not features, (G, N) bool. They are chosen only after all others. None if there
            are none.

    Returns:
        Indices (G, k) in the order of selection.
    """
    if padding is not None:
        features = torch.where(padding[:, :, None], 0, features)
    if features.shape[2] > dimensions:
        generator = Generator().manual_seed(0)
        projection = torch.randn(features.shape[2], dimensions, generator=generator) / dimensions**0.5
        features = features @ projection.to(features)
    centre = features.mean(dim=1, keepdim=True)
    if padding is not None:
        centre = centre * (features.shape[1] / (~padding).sum(dim=1).clamp(min=1))[:, None, None]
    start = (features - centre).square().sum(dim=2)
    nearest = torch.full_like(start, torch.inf)
    if padding is not None:
        start, nearest = torch.where(padding, -1, start), torch.where(padding, LAST, nearest)
    first = start.argmax(dim=1)
    if features.shape[1] > PAIRED:
        return torch.stack([_by_blocks(*group, count) for group in zip(features, nearest, first, strict=True)])
    groups_per_chunk = max(1, PAIRS // features.shape[1] ** 2)
    groups, bounds, firsts = (torch.split(part, groups_per_chunk) for part in (features, nearest, first))
    return torch.cat([_by_pairs(*part, count) for part in zip(groups, bounds, firsts, strict=True)])


def _by_pairs(features: Tensor, nearest: Tensor, first: Tensor, count: int) -> Tensor:
    """Selects from groups using the distances of all pairs.

    Args:
        features: Features, (G, N, d).
        nearest: Squared distance of each feature to the nearest chosen one, (G, N).
        first: Index of the first chosen feature of each group, (G,).
        count: Number k of features to choose.

    Returns:
        Indices (G, k).
    """
    pairs = squared_distances(features, features)  # (G, N, N)
    rows, chosen = torch.arange(len(features), device=features.device), [first]
    for _ in range(count - 1):
        last = chosen[-1]
        nearest = torch.minimum(nearest, pairs[rows, last])
        nearest[rows, last] = -torch.inf  # so that rounding errors cannot choose a feature twice
        chosen.append(nearest.argmax(dim=1))
    return torch.stack(chosen, dim=1)


def _by_blocks(features: Tensor, bound: Tensor, first: Tensor, count: int) -> Tensor:
    """Selects from one large group (N, d) without comparing every feature with every chosen one.

    An earlier distance of a feature to the nearest chosen one is an upper bound of the current distance. So only the
    block of features with the highest bounds has to be compared with the features chosen since then. The farthest
    feature of the block is the farthest overall as long as its distance is at least the highest bound outside the
    block.

    Args:
        features: Features, (N, d).
        bound: Upper bounds of the squared distances to the nearest chosen feature, (N,).
        first: Index of the first chosen feature.
        count: Number k of features to choose.

    Returns:
        Indices (k,).
    """
    chosen = torch.empty(count, dtype=torch.long, device=features.device)
    known = torch.zeros(len(features), dtype=torch.long, device=features.device)  # chosen ones included in bounds
    chosen[0], number = first, 1
    bound = torch.minimum(bound, squared_distances(features, features[chosen[:1]])[:, 0])
    bound[first], known[:] = -torch.inf, 1
    while number < count:
        highest = bound.topk(min(BLOCK + 1, len(bound)))
        block, nearest = highest.indices[:BLOCK], highest.values[:BLOCK].clone()
        outside = float(highest.values[BLOCK]) if len(bound) > BLOCK else -torch.inf
        rows = features[block]
        for start in range(int(known[block].min()), number, CENTRES):
            since = features[chosen[start : min(start + CENTRES, number)]]
            nearest = torch.minimum(nearest, squared_distances(rows, since).amin(dim=1))
        pairs = squared_distances(rows, rows)
        while number < count:
            index = int(nearest.argmax())
            if nearest[index] < outside:
                break
            chosen[number] = block[index]
            nearest = torch.minimum(nearest, pairs[index])
            nearest[index] = -torch.inf
            number += 1
        bound[block], known[block] = nearest, number
    return chosen


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Returns squared Euclidean distances (..., N, M) between features (..., N, d) and (..., M, d).

    Rounding errors may make them slightly negative.
    """
    products = second.square().sum(dim=-1)[..., None, :] - 2 * first @ second.transpose(-2, -1)
    return products.add_(first.square().sum(dim=-1)[..., :, None])
