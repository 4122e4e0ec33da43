"""What processes that share the work tell each other."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
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
    gathered: Tensor = rows if world_size() == 1 else _GatherRows.apply(rows)
    return gathered


def gather_batch(rows: Tensor) -> tuple[Tensor, Tensor]:
    """All ranks' rows of a batch in the order of one process's, from which every R-th was dealt to each of R ranks.

    Gradients are as in `gather_rows`.

    Args:
        rows: (N, D); N differs by at most 1 between ranks, the first ones having more.

    Returns:
        (sum of N, D), and the places (N,) of this rank's own rows among them.
    """
    gathered, ranks = gather_rows(rows), world_size()
    places = [torch.arange(rank, len(gathered), ranks, device=rows.device) for rank in range(ranks)]
    own = places[distributed.get_rank() if ranks > 1 else 0]
    return (gathered[torch.cat(places).argsort()] if ranks > 1 else gathered), own


def batch_places(rows: Tensor) -> tuple[int, Tensor]:
    """How many rows the batch of all ranks has, and the places (N,) of this rank's own (N, ...) among them."""
    everyone, own = gather_batch(rows.new_zeros(len(rows), 1))
    return len(everyone), own


class _GatherRows(torch.autograd.Function):
    """Forward: gather, padded to the longest share. Backward: sum over ranks, own share."""

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
