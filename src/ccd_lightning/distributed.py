"""Communication between processes in distributed training."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.nn import functional

Value = TypeVar("Value")


def world_size() -> int:
    """Returns the number of processes; 1 without distributed training."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_ranks(value: Value) -> list[Value]:
    """Returns the values of all ranks in order of rank; shapes may differ. Every rank must call this function.

    Args:
        value: Value of this rank, on the CPU.
    """
    if world_size() == 1:
        return [value]
    gathered: list[Value] = [value] * world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


def gather_rows(rows: Tensor) -> Tensor:
    """Returns the rows of all ranks in order of rank; gradients flow back to the rank of each row.

    The gradient of a rank's rows is the sum over the losses of all ranks. If every rank computes the same loss and
    gradients are averaged over ranks, as in DistributedDataParallel, the result is the gradient of that loss.

    Args:
        rows: Rows of this rank, (N, D), where N may differ between ranks.

    Returns:
        Rows of all ranks, (sum of N, D).
    """
    gathered: Tensor = rows if world_size() == 1 else _GatherRows.apply(rows)
    return gathered


def gather_batch(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the rows of a batch of all ranks, in the order that one process would have.

    Each of R ranks has every R-th row of this batch. Gradients are as in `gather_rows`.

    Args:
        rows: Rows of this rank, (N, D). N differs by at most 1 between ranks, and the first ranks have more.

    Returns:
        Rows of all ranks, (sum of N, D), and the indices (N,) of this rank's rows among them.
    """
    gathered, ranks = gather_rows(rows), world_size()
    indices = [torch.arange(rank, len(gathered), ranks, device=rows.device) for rank in range(ranks)]
    own = indices[distributed.get_rank() if ranks > 1 else 0]
    return (gathered[torch.cat(indices).argsort()] if ranks > 1 else gathered), own


def batch_places(rows: Tensor) -> tuple[int, Tensor]:
    """Returns the number of rows in the batch of all ranks, and the indices (N,) of this rank's rows (N, ...)."""
    everyone, own = gather_batch(rows.new_zeros(len(rows), 1))
    return len(everyone), own


class _GatherRows(torch.autograd.Function):
    """Forward: gathers rows, padded to the longest share. Backward: sums gradients over ranks, takes the own share."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        own = torch.tensor([len(rows)], device=rows.device)
        lengths = [torch.empty_like(own) for _ in range(world_size())]
        distributed.all_gather(lengths, own)
        ctx.lengths = [int(length) for length in lengths]
        padded = functional.pad(rows, (0, 0, 0, max(ctx.lengths) - len(rows))).contiguous()
        shares = [torch.empty_like(padded) for _ in ctx.lengths]
        distributed.all_gather(shares, padded)
        return torch.cat([share[:length] for share, length in zip(shares, ctx.lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        start = sum(ctx.lengths[: distributed.get_rank()])
        return total[start : start + ctx.lengths[distributed.get_rank()]]
