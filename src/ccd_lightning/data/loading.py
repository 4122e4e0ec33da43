"""From images in memory to batches on a device."""

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
from ccd_lightning.ranges import at_least, seed_in_range
from ccd_lightning.transforms.patches import tiles

Batch = dict[str, Any]


class ImageBatch(NamedTuple):
    """Images, and what of each is not the margin of a letterbox.

    Attributes:
        pixels: (B, 3, H, W) in [0, 1].
        content: Top, left, bottom and right in pixels, (B, 4) int64.
    """

    pixels: Tensor
    content: Tensor


def possible_workers(wanted: int) -> int:
    """How many processes may load; beside gloo's threads, through which ranks on CPUs talk, none.

    There a worker that is forked hangs at birth now and then.
    """
    return 0 if distributed.is_initialized() and distributed.get_backend() == "gloo" else wanted


def unit_range(pixels: Tensor) -> Tensor:
    """From uint8 to [0, 1]."""
    return pixels.float() / 255


def unit_range_batch(batch: Batch) -> Batch:
    """A batch whose uint8 images are brought to [0, 1]; everything else stays as it is."""
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
    """Serves images that are in memory: in batches with their views, and in batches without any on a device.

    A subclass's `setup` fills `datasets`, and sets `root` and `preprocessing`.

    Args:
        batch_size: Images in a batch.
        views: What to draw from training and held-out images beside themselves.
        num_workers: Processes that load; 0 loads in the main one.
        seed: Decides the order and the views.
    """

    root: Path
    preprocessing: Preprocessing

    def __init__(self, batch_size: int, views: ViewTransform | None, num_workers: int, seed: int) -> None:
        super().__init__()
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
        """Normal training images, in a new order each epoch."""
        return self._loader(self.datasets["train"], shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Held-out normal images."""
        return self._loader(self.datasets["val"])

    def test_dataloader(self) -> DataLoader[Batch]:
        """Normal and abnormal test images."""
        return self._loader(self.datasets["test"])

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The test images, for their scores; no mask is read."""
        return self._loader(self.datasets["predict"])

    def normal_images(
        self, device: torch.device, rank: int = 0, ranks: int = 1, at_most: int | None = None
    ) -> tuple[Iterator[ImageBatch], Iterator[ImageBatch]]:
        """Batches of the training and of the held-out images.

        Args:
            device: Where they are put.
            rank: Which of the shares of the batches to give.
            ranks: Into how many shares they are dealt out; 1 gives all of them, the same on every rank.
            at_most: About how many images of each to give, evenly spaced, the same each time; None gives all.
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
        """Side of the tiles that the views are drawn from, in pixels; 0 where they are drawn from whole images."""
        return int(getattr(self.views, "tile", 0))

    @property
    def shown_sizes(self) -> dict[str, tuple[int, int]]:
        """Heights and widths of what an encoder is shown in pretraining, in pixels, by the options that set them."""
        whole = {} if self.tile else {"data.size": self.preprocessing.shape}
        sizes: dict[str, int] = getattr(self.views, "sizes", {})
        return whole | {f"data.views.{name}": (size, size) for name, size in sizes.items()}

    @property
    def distributions(self) -> int | None:
        """How many strong augmentations the views' family has; None where the views have no family."""
        count = getattr(getattr(self.views, "family", None), "count", None)
        return None if count is None else int(count)

    @property
    def position_pairs(self) -> int | None:
        """How many pairs of patches the views draw of an image; None where they do not say."""
        pairs = getattr(self.views, "pairs", None)
        return None if pairs is None else int(pairs)

    def held_out_distributions(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out images, or their tiles, under each strong augmentation, the same each time and on every rank.

        Yields:
            Images (B K, 3, H, W) in [0, 1] and the index (B K,) of each one's distribution; nothing where the views
            have no family of strong augmentations.
        """
        family = getattr(self.views, "family", None)
        if family is None:
            return
        # The loader's own family stays where it is.
        family, generator = copy.deepcopy(family).to(device), torch.Generator(device).manual_seed(self.seed)
        for whole, _ in self.normal_images(device)[1]:
            images = tiles(whole, self.tile) if self.tile else whole
            index = torch.arange(family.count, device=device).repeat(len(images))
            yield family(images.repeat_interleave(family.count, dim=0), index, generator), index

    def state_dict(self) -> dict[str, Any]:
        """Where in which epoch to go on: Lightning asks for the first batches before it tells a resumed run's epoch.

        With it is what this place depends on, which a resumed run must share (`cli.continuity`).
        """
        if self.trainer is None or "train" not in self.datasets:
            return {}
        done = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        epoch, batch = divmod(done, int(self.trainer.num_training_batches))
        return {"epoch": epoch, "batch": batch, **self.pace(self.trainer)}

    def pace(self, trainer: Trainer, batch_size: int | None = None) -> dict[str, Any]:
        """How many batches an epoch of training has, and what that and their images depend on.

        Args:
            trainer: Of the fit.
            batch_size: Images in a batch; None for those of this data module.
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
            "limit": str(limit),  # 1 is one batch, 1.0 all of them
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where the checkpoint was written."""
        self._go_on_at = state_dict.get("epoch", 0), state_dict.get("batch", 0)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Makes the views that are made on the device, and brings images from uint8 to [0, 1]."""
        complete = getattr(self.views, "complete", None)
        if complete is not None:
            batch = complete(batch)
        return unit_range_batch(batch)
