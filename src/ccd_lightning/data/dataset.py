"""The dataset and the samplers, which turn manifest rows into items."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ccd_lightning.data.images import Images
from ccd_lightning.data.manifest import Row
from ccd_lightning.data.masks import read_mask
from ccd_lightning.data.pixel_file import UInt8Array
from ccd_lightning.data.placement import Placement
from ccd_lightning.data.preprocessing import Preprocessing

ViewTransform = Callable[[Tensor, tuple[int, int, int]], dict[str, Any]]


class EpochIndex(NamedTuple):
    """Index of an image and an epoch. Together with the seed they determine a random view."""

    epoch: int
    item: int


class EpochSampler(Sampler[EpochIndex]):
    """Sampler whose order depends only on the seed and the epoch.

    Lightning calls `set_epoch`, so a resumed run continues with the order and the views of an uninterrupted run,
    whatever the number of workers.

    Args:
        length: Number of images.
        seed: Seed of the order.
        shuffle: Whether to draw a new order in each epoch. Otherwise images come in order and the epoch stays 0, so
            that held-out images get the same views every time.
    """

    def __init__(self, length: int, seed: int, shuffle: bool) -> None:
        self.length = length
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        self.epoch = epoch if self.shuffle else 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[EpochIndex]:
        order = np.arange(self.length)
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        return (EpochIndex(self.epoch, int(index)) for index in order)


class DistributedBatchSampler(Sampler[list[EpochIndex]]):
    """Divides batches of nearly equal size among ranks, so that all ranks together see the batches of a single process.

    Every rank gets the same number of batches, no batch is empty, and no image is left out.

    Args:
        sampler: Sampler whose indices are divided.
        batch_size: Maximum size of a rank's batch (one more if there are too few images to fill all batches).
        rank: Rank of this process, which gets every `ranks`-th image of a batch.
        ranks: Number of processes, at most the number of images.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        self.sampler = sampler  # Lightning looks for `set_epoch` here
        self.batch_size = batch_size
        self.rank = rank
        self.ranks = ranks
        self.start = 0

    def start_at(self, epoch: int, batch: int) -> None:
        """Starts the next iteration within an epoch, where a checkpoint was written. Later epochs are complete."""
        self.sampler.set_epoch(epoch)
        self.start = batch

    def __len__(self) -> int:
        length = len(self.sampler)
        return min(length // self.ranks, math.ceil(length / (self.batch_size * self.ranks)))

    def __iter__(self) -> Iterator[list[EpochIndex]]:
        keys, count = list(self.sampler), len(self)
        ends = [len(keys) * number // count for number in range(count + 1)]
        first, self.start = self.start, 0
        for start, end in itertools.pairwise(ends[first:]):
            yield keys[start:end][self.rank :: self.ranks]


class AnomalyDataset(Dataset[dict[str, Any]]):
    """Images at working size with label, kind, group, mask and, optionally, random views.

    Args:
        rows: Manifest rows of the images.
        images: Pixels and placements, possibly including other images.
        preprocessing: Preprocessing of the images, which is also applied to masks.
        seed: Seed of the views.
        views: Function that maps an image (3, H, W) uint8 and (seed, epoch, index) to additional entries of the item.
        indices: Index in `images` for each row. None if `images` contains exactly the rows.

    An item contains `image` (3, H, W) uint8, `content` (4,) int64 (top, left, bottom and right in pixels of the area
    that the image covers, without the margin of a letterbox), `label` 0 or 1, `anomaly_type`, `group` ("" if unknown),
    `path`, `mask` (H, W) bool, `has_mask` (whether the mask is known; that of a normal image is empty), and what
    `views` adds.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        images: Images,
        preprocessing: Preprocessing,
        seed: int = 0,
        views: ViewTransform | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        self.rows = rows
        self.images = images
        self.indices = np.arange(len(rows)) if indices is None else np.asarray(indices)
        self.preprocessing = preprocessing
        self.seed = seed
        self.views = views

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: EpochIndex) -> dict[str, Any]:
        row = self.rows[key.item]
        index = int(self.indices[key.item])
        image, placement = torch.from_numpy(np.array(self.images.pixels[index])), self.images.placement(index)
        item = {
            "image": image,
            "content": torch.tensor(placement.content),
            "label": row.label,
            "anomaly_type": row.anomaly_type,
            "group": row.group or "",
            "path": str(row.path),
            "mask": self._mask(row, placement),
            "has_mask": row.label == 0 or bool(row.masks),
        }
        if self.views is not None:
            item |= self.views(image, (self.seed, key.epoch, key.item))
        return item

    def pixels(self, start: int, stop: int, step: int = 1) -> UInt8Array:
        """Returns a copy of the images of the rows `start:stop:step`, of shape (N, 3, H, W)."""
        pixels: UInt8Array = self.images.pixels[self.indices[start:stop:step]]
        return pixels

    def contents(self, start: int, stop: int, step: int = 1) -> npt.NDArray[np.int64]:
        """Returns `content` of the items of the rows `start:stop:step`, of shape (N, 4)."""
        indices = self.indices[start:stop:step].tolist()
        return np.array([self.images.placement(index).content for index in indices], np.int64).reshape(-1, 4)

    def _mask(self, row: Row, placement: Placement) -> Tensor:
        if not row.masks:
            return torch.zeros(self.preprocessing.shape, dtype=torch.bool)
        return torch.from_numpy(read_mask(row.masks, row.path, self.preprocessing, placement))
