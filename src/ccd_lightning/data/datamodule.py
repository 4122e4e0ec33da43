"""The data module: training, held-out, test and prediction images."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from ccd_lightning.commands import expand
from ccd_lightning.data.dataset import AnomalyDataset, EpochIndex, EpochSampler, EvenBatches, ViewTransform
from ccd_lightning.data.division import Division, image_keys, inherited
from ccd_lightning.data.file_info import measure_range
from ccd_lightning.data.images import Geometry, load_images
from ccd_lightning.data.layouts import scan_folder
from ccd_lightning.data.leaks import find_leak, first_rank_does
from ccd_lightning.data.manifest import GOOD, Manifest, Row, one_sided
from ccd_lightning.errors import UserError
from ccd_lightning.transforms.patches import tiles
from ccd_lightning.transforms.pretext import PretextViews

Batch = dict[str, Any]
SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


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
        check_leaks: Whether a fit is refused where a training image is, perhaps mirrored, among the test images too.
        range: Grey values that become 0 and 255 in images of more than 8 bits; None finds that of 16-bit images over
            the training images, leaving out 0.01% of their pixels at either end. Images of 8 bits are not concerned.
        require_masks: Whether an abnormal test image without a mask is an error; otherwise pixel metrics leave it out.
        groups: Whether images of one patient or video, as their names or a manifest's column say, stay together.
    """

    def __init__(
        self,
        root: str,
        size: int = 256,
        crop: tuple[float, float, float, float] | None = None,
        batch_size: int = 32,
        validation: float = 0.2,
        views: PretextViews | ViewTransform | None = None,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | None = None,
        check_leaks: bool = True,
        range: tuple[float, float] | None = None,
        require_masks: bool = False,
        groups: bool = True,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"data.batch_size is {batch_size}, but must be 1 or more.")
        if not 0 < validation < 1:
            raise UserError(f"data.validation is {validation}, but must be a share between 0 and 1.")
        self.root = expand(root)
        self.geometry = Geometry(size, crop, range)
        self.batch_size = batch_size
        self.validation = validation
        self.views = views
        self.num_workers = num_workers
        self.seed = seed
        self.cache_dir = expand(cache_dir) if cache_dir else None
        self.check_leaks = check_leaks
        self.require_masks = require_masks
        self.groups = groups
        self.datasets: dict[str, AnomalyDataset] = {}
        self.split: Manifest | None = None  # once it is read
        self.processes = 1  # on this machine, each of which decodes images of its own where there is no cache
        self.division: Division | None = None  # which training images are held out, once they are read
        self._followed: list[Division | None] = []
        self._own = False
        self._go_on_at = 0, 0
        self._leak: str | None = None  # once it is looked for; empty where there is none
        self._compared = False  # and all ranks know

    def follow(self, divisions: Sequence[Division | None], own: bool = False) -> None:
        """Holds out what other runs held out, where they had these images, instead of drawing by the seed.

        Args:
            divisions: Of these runs; None for one whose checkpoint is too old to tell.
            own: Whether it is the run itself that is taken up or evaluated, not those that gave the encoders.
        """
        self._followed, self._own = list(divisions), own

    def manifest(self, masks: bool = True) -> Manifest:
        """The split table; a named data set overrides this with its own layout.

        Args:
            masks: Whether masks are wanted; without, no row names one.

        Raises:
            UserError: If the folder does not hold what is expected.
        """
        return scan_folder(self.root, masks, self.groups)

    def setup(self, stage: str) -> None:
        """Reads the images that a stage needs.

        Raises:
            UserError: If an image cannot be read or a split is empty.
        """
        if SPLITS[stage][0] not in self.datasets:
            self._read(stage)
        if stage == "fit" and self.check_leaks and self.split:
            self._refuse_leaks(self.split)

    def _read(self, stage: str) -> None:
        manifest = self.split = self.manifest(masks=stage != "predict")
        if manifest.flaws:
            raise UserError(str(manifest.flaws[0]))
        if self.require_masks and stage != "predict":
            self._refuse_missing_masks(manifest)
        if stage in ("fit", "validate"):
            self._read_training_images(manifest.select("train"))
            self._try_views()
            if stage == "fit" and (told := one_sided(manifest)):
                rank_zero_warn(f"{self.root}: {told}")
            return
        rows = manifest.select("test")
        if not rows:
            raise UserError(
                f"{self.root}: no test images; put normal ones into test/good, abnormal ones into test/KIND."
            )
        images = load_images([row.path for row in rows], self.geometry, self.cache_dir)
        self.datasets[SPLITS[stage][0]] = AnomalyDataset(rows, images, self.geometry, self.seed, self.views)

    def _refuse_missing_masks(self, manifest: Manifest) -> None:
        abnormal = [row for row in manifest.select("test") if row.label]
        missing = [row.path for row in abnormal if row.mask is None]
        if missing:
            raise UserError(
                f"{missing[0]}: no mask for this image; {len(missing)} of {len(abnormal)} abnormal images have none."
                " Add them, or leave these images out of pixel metrics with --data.require_masks false."
            )

    def _read_training_images(self, rows: list[Row]) -> None:
        """Reads the images to train on and those held out as one array, which runs of other seeds divide otherwise."""
        paths = [row.path for row in rows]
        keys = image_keys(rows, self.split.root if self.split else self.root)
        held_out = self._hold_out(rows, keys)
        learned = frozenset(key for index, key in enumerate(keys) if index not in held_out)
        self.division = Division(learned, frozenset(keys[index] for index in held_out))
        if self.geometry.range is None:
            self._find_range(paths)
        images = load_images(paths, self.geometry, self.cache_dir, self.processes)
        for name, chosen in (("train", False), ("val", True)):
            places = [index for index in range(len(rows)) if (index in held_out) == chosen]
            own = [rows[index] for index in places]
            self.datasets[name] = AnomalyDataset(own, images, self.geometry, self.seed, self.views, places)

    def _find_range(self, paths: list[Path]) -> None:
        """Sets the range of 16-bit images, if there are any, and says so; KeepConfig writes it into the config."""
        found, count = measure_range(paths, self.geometry)
        if found:
            self.geometry = replace(self.geometry, range=found)
            rank_zero_only(print)(
                f"data: {count} of {len(paths)} training images have 16 bits: grey values from {found[0]:g} to"
                f" {found[1]:g} become 0 to 255, in all splits (set others with --data.range)"
            )

    def _refuse_leaks(self, manifest: Manifest) -> None:
        """Compares training with test images, on the first rank for all; labels are not looked at.

        Where other processes run already it waits until they can hear of the outcome, which is in Lightning's own call.

        Raises:
            UserError: On every rank, if an image is in both, or a patient or video is.
        """
        together = distributed.is_available() and distributed.is_initialized()
        if self._compared or (not together and self._has_company()):
            return
        if self._leak is None:
            self._leak = first_rank_does(lambda: find_leak(manifest, self.root, self.cache_dir))
        elif together:  # as the first rank found before it started the others
            self._leak = first_rank_does(lambda: self._leak or "")
        self._compared = together or not self.trainer or self.trainer.world_size == 1
        if self._leak:
            raise UserError(self._leak)

    def _has_company(self) -> bool:
        """Whether other ranks run already, started by what started this one."""
        if self.trainer is None or self.trainer.world_size == 1:
            return False
        environment = getattr(self.trainer.strategy, "cluster_environment", None)
        return environment is not None and environment.creates_processes_externally

    def _try_views(self) -> None:
        """Draws the first image's views here, where a mistake in their settings is not told by a worker process."""
        try:
            self.datasets["train"][EpochIndex(0, 0)]
        except ValueError as error:
            raise UserError(f"data.views does not go with images of {self.geometry.size} px: {error}.") from error

    def _hold_out(self, rows: list[Row], keys: list[int]) -> set[int]:
        """Draws the held-out images, or takes those of the runs to follow; a patient's or video's stay together."""
        if not rows:
            raise UserError(f"{self.root}: no images to learn from (train/{GOOD}, in the common layout).")
        count = round(self.validation * len(rows))
        groups: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            groups.setdefault(row.group or f"image {index}", []).append(index)
        members, held_out = list(groups.values()), set[int]()
        known = [division for division in self._followed if division and division.knows(keys)]
        if (followed := inherited(members, keys, known)) and len(followed) <= len(rows) - 2:
            self._say(f"the {len(followed)} images that the encoder's run held out")
            return followed
        for group in np.random.default_rng(self.seed).permutation(len(members)).tolist():
            if len(held_out) + len(members[group]) <= count:
                held_out.update(members[group])
        if not 0 < len(held_out) <= len(rows) - 2:
            told = f" They are of {len(groups)} patients or videos; --data.groups false takes every image by itself."
            together = told if len(groups) < len(rows) else ""
            raise UserError(
                f"{self.root}: {len(rows)} training images with data.validation {self.validation} leave "
                f"{len(rows) - len(held_out)} to train on and {len(held_out)} to validate on; at least 2 and 1 are"
                f" needed.{together}"
            )
        if self._followed:
            self._say(f"{len(held_out)} images drawn by the seed; {self._relation(held_out, keys, known)}")
        return held_out

    def _relation(self, held_out: set[int], keys: list[int], known: list[Division]) -> str:
        """What the encoders' runs have to do with images that the seed drew."""
        learned = sum(any(keys[index] in division.learned for division in known) for index in held_out)
        if learned:
            return f"the encoder has learned {learned} of them, so the threshold may be too low"
        if None in self._followed:
            return (
                "the encoder may have learned them, as its checkpoint is from an older version and does not tell: give"
                " the same seed and data.validation as its run has"
            )
        if not known:
            return (
                "the encoder's run names none of them: if it saw them under other names, the threshold may be too low"
            )
        return "the encoder has learned none of them"

    def _say(self, text: str) -> None:
        if self._followed and not self._own:
            rank_zero_only(print)(f"held out: {text}")

    def _loader(self, dataset: AnomalyDataset, shuffle: bool = False) -> DataLoader[Batch]:
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if len(dataset) < ranks:
            raise UserError(
                f"{self.root}: {len(dataset)} images for {ranks} processes. Ask for fewer --trainer.devices."
            )
        batches = EvenBatches(EpochSampler(len(dataset), self.seed, shuffle), self.batch_size, rank, ranks)
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
    ) -> tuple[Iterator[Tensor], Iterator[Tensor]]:
        """Batches (B, 3, H, W) in [0, 1] of the training and of the held-out images.

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
    ) -> Iterator[Tensor]:
        step = math.ceil(len(dataset) / (at_most or len(dataset)))
        span = step * self.batch_size
        for start in range(rank * span, len(dataset), ranks * span):
            pixels = torch.from_numpy(dataset.pixels(start, start + span, step))
            yield unit_range(pixels.to(device))

    @property
    def tile(self) -> int:
        """Side of the tiles that the views are drawn from, in pixels; 0 where they are drawn from whole images."""
        return int(getattr(self.views, "tile", 0))

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
        for whole in self.normal_images(device)[1]:
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
        batches = len(EvenBatches(EpochSampler(count, self.seed, shuffle=True), size, ranks=ranks))
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
