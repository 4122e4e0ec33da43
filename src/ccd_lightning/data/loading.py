"""Loading of images from memory to batches on a device."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from ccd_lightning.data.dataset import AnomalyDataset, DistributedBatchSampler, EpochSampler, ViewTransform
from ccd_lightning.data.images import read_placed
from ccd_lightning.data.preprocessing import Preprocessing
from ccd_lightning.errors import UserError
from ccd_lightning.overrides import check_overrides
from ccd_lightning.ranges import at_least, seed_in_range
from ccd_lightning.transforms.patches import tiles

Batch = dict[str, Any]


class ImageBatch(NamedTuple):
    """A batch of images, and the area of each that is not the margin of a letterbox.

    Attributes:
        pixels: Images (B, 3, H, W) in [0, 1].
        content: Top, left, bottom and right of the area in pixels, (B, 4) int64.
    """

    pixels: Tensor
    content: Tensor


def possible_workers(wanted: int) -> int:
    """Returns how many worker processes may load images: none if ranks on CPUs communicate with gloo.

    A worker that is forked while gloo's threads run occasionally hangs at its start.
    """
    return 0 if distributed.is_initialized() and distributed.get_backend() == "gloo" else wanted


def unit_range(pixels: Tensor) -> Tensor:
    """Converts uint8 to [0, 1]."""
    return pixels.float() / 255


def unit_range_batch(batch: Batch) -> Batch:
    """Converts the uint8 images of a batch to [0, 1]. All other entries are unchanged."""
    return {
        name: unit_range(value) if isinstance(value, Tensor) and value.dtype == torch.uint8 else value
        for name, value in batch.items()
    }


def read_batch(files: Sequence[str | Path], preprocessing: Preprocessing, device: torch.device) -> ImageBatch:
    """Reads image files at working size.

    Raises:
        UserError: If a file cannot be decoded.
    """
    placed = [read_placed(Path(file), preprocessing) for file in files]
    pixels = torch.from_numpy(np.stack([one.pixels for one in placed])).to(device)
    content = torch.tensor([one.placement.content for one in placed], device=device)
    return ImageBatch(unit_range(pixels.permute(0, 3, 1, 2).contiguous()), content)


class ImageLoader(LightningDataModule):
    """Loads images from memory: in batches with their views, and in batches without views on a device.

    `setup` of a subclass fills `datasets`, and sets `root` and `preprocessing`.

    Args:
        batch_size: Number of images in a batch.
        views: Views to draw from training and held-out images in addition to the images.
        num_workers: Number of processes that load images. 0 loads in the main process.
        seed: Seed of the order and of the views.
    """

    root: Path
    preprocessing: Preprocessing

    def __init__(self, batch_size: int, views: ViewTransform | None, num_workers: int, seed: int) -> None:
        super().__init__()
        check_overrides(type(self))
        at_least("data.batch_size", batch_size, 1)
        at_least("data.num_workers", num_workers, 0)
        seed_in_range("data.seed", seed)
        self.batch_size = batch_size
        self.views = views
        self.num_workers = num_workers
        self.seed = seed
        self.datasets: dict[str, AnomalyDataset] = {}
        self._go_on_at = 0, 0

    def _loader(self, dataset: AnomalyDataset, shuffle: bool = False) -> DataLoader[Batch]:
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if len(dataset) < ranks:
            raise UserError(
                f"{self.root}: {len(dataset)} images for {ranks} processes. Ask for fewer --trainer.devices."
            )
        batches = DistributedBatchSampler(EpochSampler(len(dataset), self.seed, shuffle), self.batch_size, rank, ranks)
        if shuffle:
            batches.start_at(*self._go_on_at)
        workers = possible_workers(self.num_workers)
        return DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Returns a loader of the normal training images, in a new order in each epoch."""
        return self._loader(self.datasets["train"], shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Returns a loader of the held-out normal images."""
        return self._loader(self.datasets["val"])

    def test_dataloader(self) -> DataLoader[Batch]:
        """Returns a loader of the normal and abnormal test images."""
        return self._loader(self.datasets["test"])

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Returns a loader of the test images for scoring. No mask is read."""
        return self._loader(self.datasets["predict"])

    def normal_images(
        self, device: torch.device, rank: int = 0, ranks: int = 1, at_most: int | None = None
    ) -> tuple[Iterator[ImageBatch], Iterator[ImageBatch]]:
        """Returns batches of the training images and of the held-out images.

        Args:
            device: Device of the batches.
            rank: Index of the share of the batches to return.
            ranks: Number of shares into which batches are divided. With 1, every rank gets all batches.
            at_most: Approximate maximum number of images of each, evenly spaced and the same each time. None for all.
        """
        self.setup("fit")
        train, held_out = (self._plain(self.datasets[side], device, rank, ranks, at_most) for side in ("train", "val"))
        return train, held_out

    def _plain(
        self, dataset: AnomalyDataset, device: torch.device, rank: int, ranks: int, at_most: int | None
    ) -> Iterator[ImageBatch]:
        step = math.ceil(len(dataset) / (at_most or len(dataset)))
        span = step * self.batch_size
        for start in range(rank * span, len(dataset), ranks * span):
            pixels = torch.from_numpy(dataset.pixels(start, start + span, step))
            content = torch.from_numpy(dataset.contents(start, start + span, step))
            yield ImageBatch(unit_range(pixels.to(device)), content.to(device))

    @property
    def tile(self) -> int:
        """Side in pixels of the tiles from which the views are drawn; 0 if they are drawn from whole images."""
        return int(getattr(self.views, "tile", 0))

    @property
    def shown_sizes(self) -> dict[str, tuple[int, int]]:
        """Heights and widths in pixels of the encoder's input in pretraining, by the options that set them."""
        whole = {} if self.tile else {"data.size": self.preprocessing.shape}
        sizes: dict[str, int] = getattr(self.views, "sizes", {})
        return whole | {f"data.views.{name}": (size, size) for name, size in sizes.items()}

    @property
    def distributions(self) -> int | None:
        """Number of strong augmentations in the views' family; None if the views have no family."""
        count = getattr(getattr(self.views, "family", None), "count", None)
        return None if count is None else int(count)

    @property
    def position_pairs(self) -> int | None:
        """Number of patch pairs that the views draw per image; None if the views do not define it."""
        pairs = getattr(self.views, "pairs", None)
        return None if pairs is None else int(pairs)

    def held_out_distributions(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the held-out images, or their tiles, under each strong augmentation, equal each time and on all ranks.

        Yields:
            Images (B K, 3, H, W) in [0, 1] and the index (B K,) of the distribution of each; nothing if the views have
            no family of strong augmentations.
        """
        family = getattr(self.views, "family", None)
        if family is None:
            return
        # A copy, because the loader's own family must stay on its device.
        family, generator = copy.deepcopy(family).to(device), torch.Generator(device).manual_seed(self.seed)
        for whole, _ in self.normal_images(device)[1]:
            images = tiles(whole, self.tile) if self.tile else whole
            index = torch.arange(family.count, device=device).repeat(len(images))
            yield family(images.repeat_interleave(family.count, dim=0), index, generator), index

    def state_dict(self) -> dict[str, Any]:
        """Returns where to resume in an epoch: Lightning requests the first batches before it restores the epoch.

        Also contains what this position depends on, which must not change in a resumed run (`cli.continuity`).
        """
        if self.trainer is None or "train" not in self.datasets:
            return {}
        done = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        epoch, batch = divmod(done, int(self.trainer.num_training_batches))
        return {"epoch": epoch, "batch": batch, **self.pace(self.trainer)}

    def pace(self, trainer: Trainer, batch_size: int | None = None) -> dict[str, Any]:
        """Returns the number of batches in a training epoch, and the settings on which it and their images depend.

        Args:
            trainer: Trainer of the fit.
            batch_size: Number of images in a batch. None for that of this data module.
        """
        count, ranks, size = len(self.datasets["train"]), trainer.world_size, batch_size or self.batch_size
        batches = len(DistributedBatchSampler(EpochSampler(count, self.seed, shuffle=True), size, ranks=ranks))
        limit: int | float = trainer.limit_train_batches
        return {
            "batches": min(batches, limit) if isinstance(limit, int) else int(batches * limit),
            "images": count,
            "seed": self.seed,
            "batch_size": size,
            "ranks": ranks,
            "accumulate": trainer.accumulate_grad_batches,
            "limit": str(limit),  # 1 is one batch, 1.0 all batches
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resumes where the checkpoint was written."""
        self._go_on_at = state_dict.get("epoch", 0), state_dict.get("batch", 0)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Computes the views that are made on the device, and converts images from uint8 to [0, 1]."""
        complete = getattr(self.views, "complete", None)
        if complete is not None:
            batch = complete(batch)
        return unit_range_batch(batch)
