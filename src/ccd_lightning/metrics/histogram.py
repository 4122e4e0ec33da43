"""Histograms of values of any range, with bins of constant relative width.

The bits of a non-negative float32, read as an integer, increase with its value. The 20 bits after the sign bit are the
index of the bin. So the range need not be known in advance, and counts are integers, which add up exactly over batches
and ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

BITS = 20  # 8 of exponent and 12 of mantissa: values that share a bin differ by less than one part in 4096
BINS = 1 << BITS


def float_bins(values: Tensor) -> Tensor:
    """Returns the bin of each value, int64 in [0, BINS), in the same shape.

    Args:
        values: Finite, non-negative values of any shape and floating-point type.

    Raises:
        ValueError: If a value is negative, infinite or not a number.
    """
    values = values.detach().float()
    if not bool(((values >= 0) & (values < torch.inf)).all()):
        raise ValueError("anomaly maps must be finite and not negative")
    # Adding zero turns -0.0, whose sign bit would make the integer negative, into 0.0.
    return (values + 0.0).view(torch.int32).long() >> (31 - BITS)


def count_values(values: Tensor) -> Tensor:
    """Returns the number of values in each bin of `float_bins`: (BINS,) int64, always 8 MiB."""
    return torch.bincount(float_bins(values).flatten(), minlength=BINS)


def concatenated(parts: Iterable[Tensor], most: int = 1 << 24) -> Iterator[Tensor]:
    """Yields the parts (N,), concatenating consecutive ones as long as they have at most `most` values together."""
    waiting: list[Tensor] = []
    for part in parts:
        if waiting and sum(map(len, waiting)) + len(part) > most:
            yield torch.cat(waiting)
            waiting = []
        waiting.append(part)
    if waiting:
        yield torch.cat(waiting)


def binned_quantile(counts: Tensor, share: float) -> float:
    """Returns a quantile of a histogram: the upper end of the first bin up to which the share of values is reached.

    Args:
        counts: Counts (BINS,) from `count_values`.
        share: Share of the values, in (0, 1].

    Returns:
        A float32 number that exceeds the exact quantile by less than one part in 4096; NaN if the histogram is empty.
    """
    reached = counts.cumsum(0)
    if not reached[-1]:
        return float("nan")
    index = int((reached < share * reached[-1].double()).sum())
    return float(torch.tensor(((index + 1) << (31 - BITS)) - 1, dtype=torch.int32).view(torch.float32))
