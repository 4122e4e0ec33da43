"""Which normal images a run trained on and which it held out, stored in its checkpoint for other runs."""

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
    """Digests of the images that a run trained on and of those that it held out.

    Attributes:
        learned: Digests of the training images, without the held-out ones.
        held_out: Digests of the held-out images, which set the thresholds.
    """

    learned: frozenset[int]
    held_out: frozenset[int]

    def state(self) -> dict[str, Tensor]:
        """Returns the checkpoint entry: both sets as int64 tensors of shape (N,), in ascending order."""
        return {name: torch.tensor(sorted(getattr(self, name)), dtype=torch.int64) for name in ("learned", "held_out")}

    @classmethod
    def from_state(cls, state: Any) -> Division | None:
        """Restores a division from what `state` returned, or returns None if the checkpoint contains none."""
        if not isinstance(state, Mapping):
            return None
        learned, held_out = state.get("learned"), state.get("held_out")
        if not (isinstance(learned, Tensor) and isinstance(held_out, Tensor)):
            return None
        return cls(frozenset(learned.flatten().tolist()), frozenset(held_out.flatten().tolist()))

    def knows(self, keys: Sequence[int]) -> bool:
        """Returns whether the run used any of these images."""
        return not (self.learned.isdisjoint(keys) and self.held_out.isdisjoint(keys))


def image_keys(rows: Sequence[Row], root: Path) -> list[int]:
    """Computes a digest of each image's path relative to the root and its file size, as a signed 64-bit integer.

    It does not change when a data set or a checkpoint is moved, and does not reveal patient names.
    """
    return [_key(Path(os.path.relpath(row.path, root)).as_posix(), row.path) for row in rows]


def _key(name: str, path: Path) -> int:
    digest = hashlib.blake2b(f"{name} {size_of(path)}".encode(errors="surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest(), "big", signed=True)


def inherited(groups: Sequence[Sequence[int]], keys: Sequence[int], divisions: Sequence[Division]) -> set[int]:
    """Returns the images to hold out so that no run has trained on them: held out by some run, and learned by none.

    Args:
        groups: Indices of images that belong together, such as those of a patient. A group is held out as a whole.
        keys: Digests of all images.
        divisions: Divisions of the other runs.

    Returns:
        Indices. Empty if the runs used other images, or if one of them trained on what another held out.
    """
    learned = frozenset[int]().union(*(division.learned for division in divisions))
    held_out = frozenset[int]().union(*(division.held_out for division in divisions))
    found: set[int] = set()
    for group in groups:
        members = {keys[index] for index in group}
        if members & held_out and not members & learned:
            found.update(group)
    return found
