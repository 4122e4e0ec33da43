"""Which normal images a run learned from and which it held out, as its checkpoint tells other runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccd_lightning.data.manifest import Row
from ccd_lightning.data.sources import size_of


@dataclass(frozen=True)
class Division:
    """Digests of the images that a run learned from and of those that it held out.

    Attributes:
        learned: Of the training images without those held out.
        held_out: Of the images that thresholds are set on.
    """

    learned: frozenset[int]
    held_out: frozenset[int]

    def state(self) -> dict[str, Tensor]:
        """What is stored in a checkpoint: both sets as int64, (N,) each, ascending."""
        return {name: torch.tensor(sorted(getattr(self, name)), dtype=torch.int64) for name in ("learned", "held_out")}

    @classmethod
    def from_state(cls, state: Any) -> Division | None:
        """Reads what `state` gave; None where a checkpoint holds nothing of the kind."""
        if not isinstance(state, Mapping):
            return None
        learned, held_out = state.get("learned"), state.get("held_out")
        if not (isinstance(learned, Tensor) and isinstance(held_out, Tensor)):
            return None
        return cls(frozenset(learned.flatten().tolist()), frozenset(held_out.flatten().tolist()))

    def knows(self, keys: Sequence[int]) -> bool:
        """Whether any of these images was among the run's."""
        return not (self.learned.isdisjoint(keys) and self.held_out.isdisjoint(keys))


def image_keys(rows: Sequence[Row], root: Path) -> list[int]:
    """A digest of each image's path below the data set's root and of its file's size, as a signed 64-bit number.

    It stays the same when a data set or a checkpoint is moved, and does not tell a patient's name.
    """
    return [_key(Path(os.path.relpath(row.path, root)).as_posix(), row.path) for row in rows]


def _key(name: str, path: Path) -> int:
    digest = hashlib.blake2b(f"{name} {size_of(path)}".encode(errors="surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest(), "big", signed=True)


def inherited(groups: Sequence[Sequence[int]], keys: Sequence[int], divisions: Sequence[Division]) -> set[int]:
    """The images to hold out so that no run has learned them: those that runs held out and none learned from.

    Args:
        groups: Indices of images that belong together, such as a patient's; all or none of them are held out.
        keys: Digests of all images.
        divisions: Of the other runs.

    Returns:
        Indices; none where the runs saw other images, or one of them learned from what another one held out.
    """
    learned = frozenset[int]().union(*(division.learned for division in divisions))
    held_out = frozenset[int]().union(*(division.held_out for division in divisions))
    found: set[int] = set()
    for group in groups:
        members = {keys[index] for index in group}
        if members & held_out and not members & learned:
            found.update(group)
    return found
