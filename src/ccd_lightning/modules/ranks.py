"""What processes that share the work tell each other."""

from __future__ import annotations

from typing import TypeVar

from torch import distributed

Value = TypeVar("Value")


def gather_ranks(value: Value) -> list[Value]:
    """What every rank holds, in order of rank; shapes may differ. All ranks must call it.

    Args:
        value: This rank's, on the CPU.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    gathered: list[Value] = [value] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered
