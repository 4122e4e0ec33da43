"""Detection of duplicates across splits, which would make a test easier than it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccd_lightning.data.file_info import SIDE, ImageInfo
from ccd_lightning.data.manifest import Manifest
from ccd_lightning.data.pixel_file import UInt8Array
from ccd_lightning.data.thumbnails import cached_infos
from ccd_lightning.data.walking import count

# Correlations of thumbnails. Files that were saved again, mirrored or rotated reach 0.997, resized ones 0.994.
# Different images of aligned fundi stay below 0.985, different head CT slices below 0.98 (docs/benchmarks.md).
COPY = 0.997
NEAR = 0.99
FLAT = 1.0  # grey levels: thumbnails that vary less are not compared
TURNS = ("", ", if one is mirrored", ", if one is turned", ", if one is turned and mirrored")
CHUNK = 1024

Floats = NDArray[np.float32]


class Pair(NamedTuple):
    """A training image and a test image that are duplicates or near-duplicates.

    Attributes:
        train: Path of the training image.
        test: Path of the test image.
        similarity: Correlation of their thumbnails in the best-matching orientation; 1 if their bytes are equal.
        reason: What they have in common, as the end of a sentence that begins with both names.
    """

    train: Path
    test: Path
    similarity: float
    reason: str

    @property
    def is_leak(self) -> bool:
        """Whether the two count as duplicates rather than near-duplicates."""
        return self.similarity >= COPY


def find_pairs(manifest: Manifest, cache_dir: Path | None = None, similar: bool = True) -> list[Pair]:
    """Reads all images and finds duplicates and groups that are shared between training and test images.

    Files that cannot be read are skipped, and their number is printed.

    Args:
        manifest: The split.
        cache_dir: Folder in which thumbnails are cached, so that only new and changed files are decoded. None for no
            cache.
        similar: Whether to compare thumbnails. Otherwise only equal files and shared groups are found.
    """
    paths = [row.path for row in manifest.rows]
    infos = dict(cached_infos(paths, cache_dir, "Comparing with test images"))
    if missing := [path for path in paths if path not in infos]:
        print(f"data: not compared: {count(len(missing), 'image')} that cannot be read, such as {missing[0]}")
    return shared_groups(manifest) + find_duplicates(manifest, infos, similar)


def shared_groups(manifest: Manifest) -> list[Pair]:
    """Returns one training and one test image for each patient or video that is in both."""
    train, test = (
        {row.group: row.path for row in reversed(manifest.select(split)) if row.group} for split in ("train", "test")
    )
    return [Pair(train[group], test[group], 1.0, f"are both of {group}") for group in train if group in test]


def find_duplicates(manifest: Manifest, infos: Mapping[Path, ImageInfo], similar: bool = True) -> list[Pair]:
    """Finds pairs of a training and a test image with equal bytes, or with matching pixels in one of 8 orientations.

    The time grows with the product of both numbers of images: a few seconds for 16,000 x 4,000.

    Args:
        manifest: The split.
        infos: Information about its images. Images without an entry are skipped.
        similar: Whether to compare thumbnails. Otherwise only pairs with equal bytes are found.

    Returns:
        Pairs whose thumbnails correlate by NEAR or more, the most similar first.
    """
    train, test = ([row.path for row in manifest.select(split) if row.path in infos] for split in ("train", "test"))
    found = {(pair.train, pair.test): pair for pair in (_alike(train, test, infos) if similar else ())}
    tested = {infos[path].digest: path for path in test}
    for path in train:
        if other := tested.get(infos[path].digest):
            found[path, other] = Pair(path, other, 1.0, "are the same file")
    return sorted(found.values(), key=lambda pair: (-pair.similarity, pair.train, pair.test))


def _alike(train: Sequence[Path], test: Sequence[Path], infos: Mapping[Path, ImageInfo]) -> Iterator[Pair]:
    tested = [_standardised(turned) for turned in _orientations(_thumbnails(test, infos))]
    for start in range(0, len(train), CHUNK):
        chunk = _standardised(_thumbnails(train[start : start + CHUNK], infos))
        best, turn = np.full((len(chunk), len(test)), -1, np.float32), np.zeros((len(chunk), len(test)), np.int8)
        for number, turned in enumerate(tested):
            similarity = chunk @ turned.T
            turn[similarity > best] = number
            np.maximum(best, similarity, out=best)
        for row, column in np.argwhere(best >= NEAR):
            mirrored, quarter = divmod(int(turn[row, column]), 4)
            nearly = "" if best[row, column] >= COPY else "nearly "
            words = (
                f"look {nearly}the same{TURNS[mirrored + 2 * (quarter > 0)]} (thumbnails of {SIDE} px correlate by"
                f" {best[row, column]:.3f})"
            )
            yield Pair(train[start + row], test[column], float(best[row, column]), words)


def _thumbnails(paths: Sequence[Path], infos: Mapping[Path, ImageInfo]) -> UInt8Array:
    return np.array([infos[path].thumbnail for path in paths], np.uint8).reshape(-1, SIDE, SIDE)


def _orientations(thumbnails: UInt8Array) -> list[UInt8Array]:
    """Returns 8 x (N, SIDE, SIDE): four rotations by 90 degrees, then those of the mirrored images."""
    return [np.rot90(side, quarter, (1, 2)) for side in (thumbnails, thumbnails[:, :, ::-1]) for quarter in range(4)]


def _standardised(thumbnails: UInt8Array) -> Floats:
    """Returns (N, SIDE * SIDE) of mean 0 and norm 1, so that dot products are correlations. Flat images become 0."""
    values = thumbnails.reshape(len(thumbnails), SIDE * SIDE).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length > FLAT * SIDE, values / np.maximum(length, FLAT), 0)
