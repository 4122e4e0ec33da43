"""Counting values of any range in bins whose width is relative.

The bits of a non-negative float32, read as an integer, grow with its value. The top 20 of them number the bin: no range
has to be known beforehand, and counts are integers, which add exactly over batches and ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

BITS = 20  # 8 of exponent and 12 of mantissa: values that share a bin differ by less than one part in 4096
BINS = 1 << BITS


def float_bins(values: Tensor) -> Tensor:
    """The bin of each value, int64 in [0, BINS), of the same shape.

    Args:
        values: Finite and not negative, of any shape and floating type.

    Raises:
        ValueError: If a value is negative, infinite or not a number.
    """
    values = values.detach().float()
    if not bool(((values >= 0) & (values < torch.inf)).all()):
        raise ValueError("anomaly maps must be finite and not negative")
    # Adding zero turns -0.0, whose sign bit would make the integer negative, into 0.0.
    return (values + 0.0).view(torch.int32).long() >> (31 - BITS)


def count_values(values: Tensor) -> Tensor:
    """How many of the values fall into each bin: (BINS,) int64, 8 MiB whatever their number. See `float_bins`."""
    return torch.bincount(float_bins(values).flatten(), minlength=BINS)


def concatenated(parts: Iterable[Tensor], most: int = 1 << 24) -> Iterator[Tensor]:
    """Parts (N,) one after the other, several of them in one as long as they hold no more than `most` values."""
    waiting: list[Tensor] = []
    for part in parts:
        if waiting and sum(map(len, waiting)) + len(part) > most:
            yield torch.cat(waiting)
            waiting = []
        waiting.append(part)
    if waiting:
        yield torch.cat(waiting)


def binned_quantile(counts: Tensor, share: float) -> float:
    """The smallest upper end of a bin that at least a share of the values do not exceed.

    Args:
        counts: (BINS,), from `count_values`.
        share: In (0, 1].

    Returns:
        A float32 number, above the quantile itself by less than one part in 4096; NaN where nothing was counted.
    """
    reached = counts.cumsum(0)
    if not reached[-1]:
        return float("nan")
    index = int((reached < share * reached[-1].double()).sum())
    return float(torch.tensor(((index + 1) << (31 - BITS)) - 1, dtype=torch.int32).view(torch.float32))
