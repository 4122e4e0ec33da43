"""Means over batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

Batches = Callable[[], Iterator[Tensor]]
AddUp = Callable[[Tensor], Tensor]


def mean_over(batches: Batches, total: AddUp, like: Tensor, add_up: AddUp) -> Tensor:
    """A mean over the rows of all processes, in float64 where the device has it.

    Args:
        batches: Gives batches (N, D) of this process; there may be none.
        total: Sums up over the rows of a batch what the mean is of.
        like: Of the shape that `total` gives, on the batches' device.
        add_up: Adds a tensor of sums to those of the other processes.
    """
    exact = torch.float32 if like.device.type == "mps" else torch.float64
    sums, count = torch.zeros_like(like, dtype=exact), 0
    for batch in batches():
        sums, count = sums + total(batch.to(exact)), count + len(batch)
    counted = add_up(torch.cat([sums.flatten(), sums.new_tensor([count])]))
    return (counted[:-1] / counted[-1]).view_as(like)


def weighted_means(batches: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Means of named values over all rows of some batches, of each of which the number of rows and the means are known.

    Args:
        batches: The same names in each; there may be none.
    """
    total = sum(count for count, _ in batches)
    names = batches[0][1] if batches else ()
    return {name: sum(count * values[name] for count, values in batches) / total for name in names}
