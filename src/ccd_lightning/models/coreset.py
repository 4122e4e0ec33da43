"""Greedy coresets: features chosen so that every other one is near a chosen one (Sener and Savarese, ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

PROJECTED = 128  # dimensions in which a coreset is chosen
LAST = -1e30  # below every distance, rounding included
PAIRED = 4096  # groups up to this size are chosen from by the distances of all pairs, larger ones block by block
PAIRS = 2**24  # so many of these are held at a time
BLOCK = 1024  # features of a large group whose distances are brought up to date together
CENTRES = 4096  # that they are compared with at a time


@torch.no_grad()
def greedy_coreset(features: Tensor, count: int, dimensions: int = PROJECTED, filled: Tensor | None = None) -> Tensor:
    """Chooses features by k-center greedy.

    Each next one is that which is farthest from all chosen ones; the first is farthest from the mean. Distances are
    those of a random projection, always the same, where that has fewer dimensions.

    Args:
        features: (G, N, D), of G groups, each of which is chosen from by itself.
        count: k, how many to choose of each group; not more than N.
        dimensions: Of the projection.
        filled: Rows that are no features, (G, N) bool, which are chosen when nothing else is left; None for none.

    Returns:
        Indices (G, k), in the order in which they were chosen.
    """
    if filled is not None:
        features = torch.where(filled[:, :, None], 0, features)
    if features.shape[2] > dimensions:
        generator = Generator().manual_seed(0)
        projection = torch.randn(features.shape[2], dimensions, generator=generator) / dimensions**0.5
        features = features @ projection.to(features)
    centre = features.mean(dim=1, keepdim=True)
    if filled is not None:
        centre = centre * (features.shape[1] / (~filled).sum(dim=1).clamp(min=1))[:, None, None]
    start = (features - centre).square().sum(dim=2)
    open_ = torch.full_like(start, torch.inf)
    if filled is not None:
        start, open_ = torch.where(filled, -1, start), torch.where(filled, LAST, open_)
    first = start.argmax(dim=1)
    if features.shape[1] > PAIRED:
        return torch.stack([_by_blocks(*group, count) for group in zip(features, open_, first, strict=True)])
    at_once = max(1, PAIRS // features.shape[1] ** 2)
    groups, bounds, firsts = (torch.split(part, at_once) for part in (features, open_, first))
    return torch.cat([_by_pairs(*part, count) for part in zip(groups, bounds, firsts, strict=True)])


def _by_pairs(features: Tensor, nearest: Tensor, first: Tensor, count: int) -> Tensor:
    """Chooses from groups (G, N, d), given each feature's distance to the nearest chosen one (G, N), by all pairs."""
    pairs = squared_distances(features, features)  # (G, N, N)
    rows, chosen = torch.arange(len(features), device=features.device), [first]
    for _ in range(count - 1):
        last = chosen[-1]
        nearest = torch.minimum(nearest, pairs[rows, last])
        nearest[rows, last] = -torch.inf  # rounding must not choose one twice
        chosen.append(nearest.argmax(dim=1))
    return torch.stack(chosen, dim=1)


def _by_blocks(features: Tensor, bound: Tensor, first: Tensor, count: int) -> Tensor:
    """The same for one large group (N, d), without comparing every feature with every chosen one.

    What a feature's distance to the nearest chosen one was, is an upper bound of what it is. So only the features with
    the highest bounds have to be compared with those that were chosen since, a block of them at once, and one of the
    block is the farthest of all as long as it is farther than the highest bound outside of the block.
    """
    chosen = torch.empty(count, dtype=torch.long, device=features.device)
    known = torch.zeros(len(features), dtype=torch.long, device=features.device)  # chosen ones that bounds account for
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
    """Between features (..., N, d) and (..., M, d): (..., N, M), with rounding that may leave less than 0."""
    products = second.square().sum(dim=-1)[..., None, :] - 2 * first @ second.transpose(-2, -1)
    return products.add_(first.square().sum(dim=-1)[..., :, None])
