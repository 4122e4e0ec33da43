"""What processes that share the work tell each other."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather
from torch.nn import functional

Value = TypeVar("Value")


def world_size() -> int:
    """The number of processes that share the work."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_ranks(value: Value) -> list[Value]:
    """What every rank holds, in order of rank; shapes may differ. All ranks must call it.

    Args:
        value: This rank's, on the CPU.
    """
    if world_size() == 1:
        return [value]
    gathered: list[Value] = [value] * world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


def gather_rows(rows: Tensor) -> Tensor:
    """All ranks' rows, in order of rank, with gradients that reach the rank a row came from.

    The gradient that a rank's rows get is the sum over the ranks' losses. When every rank computes the same loss and
    gradients are averaged over ranks, as DistributedDataParallel does, what results is the gradient of that loss.

    Args:
        rows: (N, D), where N may differ between ranks.

    Returns:
        (sum of N, D).
    """
    if world_size() == 1:
        return rows
    counts = _row_counts(rows)
    padded = functional.pad(rows, (0, 0, 0, max(counts) - len(rows)))
    shares = all_gather(padded)  # type: ignore[no-untyped-call]
    return torch.cat([share[:count] for share, count in zip(shares, counts, strict=True)])


def _row_counts(rows: Tensor) -> list[int]:
    own = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(own) for _ in range(world_size())]
    distributed.all_gather(counts, own)
    return [int(count) for count in counts]
