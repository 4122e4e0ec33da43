"""Data modules: training, held-out, test and prediction images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from ccd_lightning.data.dataset import AnomalyDataset, EpochSampler, ViewTransform
from ccd_lightning.data.images import Geometry, load_images
from ccd_lightning.data.layouts import scan_folder
from ccd_lightning.data.manifest import Manifest, Row
from ccd_lightning.data.synthetic import synthesize
from ccd_lightning.errors import UserError

Batch = dict[str, Any]


class AnomalyDataModule(LightningDataModule):
    """Normal images to train on, held-out normal ones to validate on, and a test set.

    Expects the common folder layout: `train/good`, `test/good`, `test/<kind>`, and masks in `ground_truth/<kind>`.

    Args:
        root: The data set's folder.
        size: Side of the square that images are brought to, in pixels.
        crop: Left, top, right and bottom of the part to use, as fractions; None for all of the image.
        batch_size: Images in a batch.
        validation: Share of the training images that is held out, drawn by the seed.
        views: What to draw from training and held-out images beside themselves (pretraining's views).
        num_workers: Processes that load; 0 loads in the main one.
        seed: Decides the hold-out, the order and the views.
        cache_dir: Folder for decoded images, shared by runs and processes; None decodes into memory, once a run.
    """

    def __init__(
        self,
        root: str,
        size: int = 256,
        crop: tuple[float, float, float, float] | None = None,
        batch_size: int = 32,
        validation: float = 0.2,
        views: ViewTransform | None = None,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.geometry = Geometry(size, crop)
        self.batch_size = batch_size
        self.validation = validation
        self.views = views
        self.num_workers = num_workers
        self.seed = seed
        self.cache_dir = Path(cache_dir) if cache_dir else None
        self.datasets: dict[str, AnomalyDataset] = {}

    def manifest(self) -> Manifest:
        """The split table; a named data set overrides this with its own layout.

        Raises:
            UserError: If the folder does not hold what is expected.
        """
        return scan_folder(self.root)

    def setup(self, stage: str) -> None:
        """Reads the images that a stage needs.

        Raises:
            UserError: If an image cannot be read or a split is empty.
        """
        manifest = self.manifest()
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}[stage]
        rows = dict(zip(("train", "val"), self._hold_out(manifest.select("train")), strict=True))
        rows["test"] = manifest.select("test")
        if not all(rows[name] for name in needed):
            raise UserError(
                f"{self.root}: no test images; put normal ones into test/good, abnormal ones into test/KIND."
            )
        for name in needed:
            if name not in self.datasets:
                self.datasets[name] = self._dataset(rows[name])

    def _hold_out(self, rows: list[Row]) -> tuple[list[Row], list[Row]]:
        count = round(self.validation * len(rows))
        if not 0 < count <= len(rows) - 2:
            raise UserError(
                f"{self.root}: {len(rows)} training images with data.validation {self.validation} leave "
                f"{len(rows) - count} to train on and {count} to validate on; at least 2 and 1 are needed."
            )
        held_out = set(np.random.default_rng(self.seed).permutation(len(rows))[:count].tolist())
        train = [row for index, row in enumerate(rows) if index not in held_out]
        return train, [rows[index] for index in sorted(held_out)]

    def _dataset(self, rows: list[Row]) -> AnomalyDataset:
        images = load_images([row.path for row in rows], self.geometry, self.cache_dir)
        return AnomalyDataset(rows, images, self.geometry, self.seed, self.views)

    def _loader(self, dataset: AnomalyDataset, shuffle: bool = False) -> DataLoader[Batch]:
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=EpochSampler(len(dataset), self.seed, shuffle, rank, ranks),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
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
        """The test images, for their scores."""
        return self._loader(self.datasets["test"])

    def normal_dataloaders(self) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
        """Training and held-out images without views, in order: what a probe of features is fitted on."""
        self.setup("fit")
        normal = (self.datasets[name] for name in ("train", "val"))
        train, held_out = (self._loader(AnomalyDataset(data.rows, data.images, data.geometry)) for data in normal)
        return train, held_out

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Brings images from uint8 to [0, 1], on the device."""
        return {
            name: value.float() / 255 if isinstance(value, torch.Tensor) and value.dtype == torch.uint8 else value
            for name, value in batch.items()
        }


class Folder(AnomalyDataModule):
    """A user's own images in the common folder layout."""


class _Synthetic(AnomalyDataModule):
    """Procedural images, made where they are not there yet.

    Args:
        root: The folder to make, or to read when it is there.
        train: Normal images to train and validate on.
        test_good: Normal images to test on.
        test_abnormal: Abnormal images to test on, spread evenly over the kinds.
        render_seed: Decides the images; the run's seed does not.
        **kwargs: As in `AnomalyDataModule`; `size` is also the size the images are made at.
    """

    name: str

    def __init__(
        self,
        root: str,
        train: int = 320,
        test_good: int = 200,
        test_abnormal: int = 210,
        render_seed: int = 0,
        size: int = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, size, **kwargs)
        self.counts = train, test_good, test_abnormal
        self.render_seed = render_seed

    def prepare_data(self) -> None:
        """Makes the images, or finds them made."""
        train, test_good, test_abnormal = self.counts
        synthesize(
            self.root,
            self.name,
            size=self.geometry.size,
            seed=self.render_seed,
            train=train,
            test_good=test_good,
            test_abnormal=test_abnormal,
        )


class SyntheticColonoscopy(_Synthetic):
    """Procedural colonoscopy frames, with polyps of three grades of subtlety in the test set."""

    name = "colonoscopy"

    def __init__(self, root: str = "data/synthetic_colonoscopy", **kwargs: Any) -> None:
        super().__init__(root, **kwargs)


class SyntheticFundus(_Synthetic):
    """Procedural fundus photographs, with lesions and enlarged cups of three grades in the test set."""

    name = "fundus"

    def __init__(self, root: str = "data/synthetic_fundus", **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
