"""Selection of the training images that are held out for validation and thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ccd_lightning.data.division import Division, inherited
from ccd_lightning.data.manifest import GOOD, Row
from ccd_lightning.errors import UserError


@dataclass(frozen=True)
class HoldOut:
    """Holds out a random fraction of the images, or those that other runs held out if they used the same images.

    Attributes:
        root: Folder of the data set, used in error messages.
        share: Fraction of the images to hold out.
        seed: Seed of the random selection.
        followed: Divisions of the runs to follow, None for a run whose checkpoint is too old to contain one.
    """

    root: Path
    share: float
    seed: int
    followed: Sequence[Division | None] = ()

    def draw(self, rows: Sequence[Row], keys: Sequence[int]) -> tuple[set[int], str]:
        """Selects the held-out images. All images of a patient or video stay together.

        Args:
            rows: Manifest rows of the training images.
            keys: Digests of the training images (`image_keys`).

        Returns:
            Indices of the held-out images, and a description of where they come from, "" if there is no run to follow.

        Raises:
            UserError: If there are too few images.
        """
        if not rows:
            raise UserError(
                f"{self.root}: no images to learn from. Put normal ones into train/{GOOD}, or into the manifest."
            )
        count = round(self.share * len(rows))
        groups: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            groups.setdefault(row.group or f"image {index}", []).append(index)
        members, held_out = list(groups.values()), set[int]()
        known = [division for division in self.followed if division and division.knows(keys)]
        if (followed := inherited(members, keys, known)) and len(followed) <= len(rows) - 2:
            return followed, f"the {len(followed)} images that the encoder's run held out"
        for group in np.random.default_rng(self.seed).permutation(len(members)).tolist():
            if len(held_out) + len(members[group]) <= count:
                held_out.update(members[group])
        if count and not held_out and len(members) > 1:  # as with few volumes of many slices each
            smallest: list[int] = min(members, key=len)
            held_out.update(smallest)
        if not 0 < len(held_out) <= len(rows) - 2:
            whose = f" They are of {len(groups)} patients, videos or files;"
            advice = f"{whose} --data.groups false treats every image separately."
            together = advice if len(groups) < len(rows) else ""
            raise UserError(
                f"{self.root}: {len(rows)} training images with data.validation {self.share} leave "
                f"{len(rows) - len(held_out)} to train on and {len(held_out)} to validate on; at least 2 and 1 are"
                f" needed.{together}"
            )
        if not self.followed:
            return held_out, ""
        return held_out, f"{len(held_out)} images drawn by the seed; {self._relation(held_out, keys, known)}"

    def _relation(self, held_out: set[int], keys: Sequence[int], known: Sequence[Division]) -> str:
        """Describes how the images drawn by the seed relate to the images of the encoders' runs."""
        learned = sum(any(keys[index] in division.learned for division in known) for index in held_out)
        if learned:
            return f"the encoder was trained on {learned} of them, so the threshold may be too low"
        if None in self.followed:
            return (
                "the encoder may have been trained on them; its checkpoint is from an older version and does not list"
                " its images: give the same seed and data.validation as its run has"
            )
        if not known:
            return (
                "the encoder's run names none of them: if it saw them under other names, the threshold may be too low"
            )
        return "the encoder was trained on none of them"
