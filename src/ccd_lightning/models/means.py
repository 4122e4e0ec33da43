"""Means over batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

Batches = Callable[[], Iterator[Tensor]]
AddUp = Callable[[Tensor], Tensor]


def mean_over(batches: Batches, total: AddUp, like: Tensor, add_up: AddUp) -> Tensor:
    """Computes a mean over the rows of all processes, in float64 if the device supports it.

    Args:
        batches: Returns an iterator over the batches (N, D) of this process; there may be none.
        total: Returns the sum over the rows of a batch of the quantity to average.
        like: Tensor with the shape of the result of `total`, on the device of the batches.
        add_up: Sums a tensor over all processes.
    """
    exact = torch.float32 if like.device.type == "mps" else torch.float64
    sums, count = torch.zeros_like(like, dtype=exact), 0
    for batch in batches():
        sums, count = sums + total(batch.to(exact)), count + len(batch)
    counted = add_up(torch.cat([sums.flatten(), sums.new_tensor([count])]))
    return (counted[:-1] / counted[-1]).view_as(like)


def weighted_means(batches: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Averages named values over batches, weighted by the number of rows.

    Args:
        batches: Number of rows and means of each batch, with the same names in each; there may be none.
    """
    total = sum(count for count, _ in batches)
    names = batches[0][1] if batches else ()
    return {name: sum(count * values[name] for count, values in batches) / total for name in names}
