"""A manifest row becomes an item."""

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
    """Which image, in which epoch: with the seed, all that a random view depends on."""

    epoch: int
    item: int


class EpochSampler(Sampler[EpochIndex]):
    """An order that is a function of seed and epoch alone.

    Lightning calls `set_epoch`, so that a resumed run goes on with the order and the views of the uninterrupted one,
    whatever the number of workers.

    Args:
        length: Number of images.
        seed: Decides the order.
        shuffle: Whether to draw a new order each epoch; otherwise images come in order and the epoch stays 0, so that
            held-out images get the same views every time.
    """

    def __init__(self, length: int, seed: int, shuffle: bool) -> None:
        self.length = length
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the next iteration."""
        self.epoch = epoch if self.shuffle else 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[EpochIndex]:
        order = np.arange(self.length)
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        return (EpochIndex(self.epoch, int(index)) for index in order)


class DistributedBatchSampler(Sampler[list[EpochIndex]]):
    """Batches of nearly equal size, each dealt out to the ranks, so that together they see what one process would.

    Every rank gets as many batches, none of them empty, and no image is left out.

    Args:
        sampler: What to divide.
        batch_size: The most that a rank's batch may hold (one more where there are fewer images than that needs).
        rank: This process; it gets every `ranks`-th image of a batch.
        ranks: Number of processes, at most the number of images.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        self.sampler = sampler  # Lightning looks here for `set_epoch`
        self.batch_size = batch_size
        self.rank = rank
        self.ranks = ranks
        self.start = 0

    def start_at(self, epoch: int, batch: int) -> None:
        """Makes the next iteration begin within an epoch, where a checkpoint was written; later ones are whole."""
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
    """Images at working size with label, kind, group, mask and, on request, random views.

    Args:
        rows: The images' descriptions.
        images: Their pixels and places, perhaps among those of others.
        preprocessing: What brought the images to this size; masks are treated alike.
        seed: Of the views.
        views: From an image (3, H, W) uint8 and (seed, epoch, index) to further entries of the item.
        indices: Where among the images each row's is; None where there are no others.

    An item holds `image` (3, H, W) uint8, `content` (4,) int64 (top, left, bottom and right of what of it is the image,
    without the margin of a letterbox, in pixels), `label` 0 or 1, `anomaly_type`, `group` ("" where not known), `path`,
    `mask` (H, W) bool, `has_mask` (whether the mask is known; that of a normal image is empty), and what `views` adds.
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
        """A copy of the images of the rows `start:stop:step`, (N, 3, H, W)."""
        pixels: UInt8Array = self.images.pixels[self.indices[start:stop:step]]
        return pixels

    def contents(self, start: int, stop: int, step: int = 1) -> npt.NDArray[np.int64]:
        """The items' `content` of the same rows, (N, 4)."""
        indices = self.indices[start:stop:step].tolist()
        return np.array([self.images.placement(index).content for index in indices], np.int64).reshape(-1, 4)

    def _mask(self, row: Row, placement: Placement) -> Tensor:
        if not row.masks:
            return torch.zeros(self.preprocessing.shape, dtype=torch.bool)
        return torch.from_numpy(read_mask(row.masks, row.path, self.preprocessing, placement))
