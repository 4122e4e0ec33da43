"""The data module: training, held-out, test and prediction images."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from ccd_lightning.commands import expand
from ccd_lightning.data.dataset import AnomalyDataset, EpochIndex, ViewTransform
from ccd_lightning.data.depth import describe_window
from ccd_lightning.data.description import describe
from ccd_lightning.data.division import Division, image_keys
from ccd_lightning.data.grey_values import measure_window, refuse_flat
from ccd_lightning.data.holdout import HoldOut
from ccd_lightning.data.images import Images, load_images
from ccd_lightning.data.layouts import scan_folder
from ccd_lightning.data.leaks import LeakCheck
from ccd_lightning.data.loading import ImageLoader
from ccd_lightning.data.manifest import Manifest, Row, one_sided
from ccd_lightning.data.manifest_checks import refuse_missing_masks, require_files, require_manifest
from ccd_lightning.data.pixel_file import PixelFile
from ccd_lightning.data.preprocessing import Crop, Fit, Preprocessing
from ccd_lightning.data.shape_report import describe_shapes
from ccd_lightning.data.sources import AXIAL
from ccd_lightning.data.stacks import expand_stacks
from ccd_lightning.data.tiles import Tiles
from ccd_lightning.errors import UserError
from ccd_lightning.overrides import check_overrides, is_packaged
from ccd_lightning.ranges import between, refuse
from ccd_lightning.transforms.pretext import PretextViews

SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


class AnomalyDataModule(ImageLoader):
    """Normal images to train on, held-out normal ones to validate on, and a test set.

    Expects the common folder layout: `train/good`, `test/good`, `test/<kind>`, and masks in `ground_truth/<kind>`.

    Args:
        root: The data set's folder.
        size: Working size to which images are resized, in pixels: height and width, or the side of a square.
        crop: Part of the image to use: left, top, right and bottom as fractions; "auto" to detect the content of frames
            with a dark margin in each image; None for the whole image.
        batch_size: Number of images in a batch, per process.
        validation: Share of the training images that is held out, drawn by the seed.
        views: Views to draw from training and held-out images, for pretraining.
        num_workers: Number of processes that load images. 0 loads in the main process.
        seed: Seed of the held-out images, the order and the views.
        cache_dir: Folder for decoded images, shared by runs and processes. None keeps up to 2 GB in memory, and more in
            the user's cache folder.
        check_leaks: Whether a fit stops with an error if training and test images share a file, a patient or video, or
            images that look the same, also mirrored; "files" to ignore what images look like.
        window: Which grey values of images with more than 8 bits are mapped to 0 and 255: two values in the unit of the
            files; "percentile [LOW, HIGH]" for percentiles of the training images; None for the percentiles 0.01 and
            99.99; "full" for the whole range of the file's bit depth; "stored" for the first window stored in a DICOM
            file, "stored:NAME" for the one with this name.
        require_masks: Whether an abnormal test image without a mask is an error. Otherwise pixel metrics leave it out.
        groups: Whether images of the same patient or video are kept together. Groups come from file names, DICOM
            headers or a manifest's column.
        fit: How images of another shape are fitted to the working size: "squash" stretches them, "letterbox" adds a
            margin, which is ignored everywhere, and "crop" cuts off both ends of the longer side.
        tiles: How detectors divide large images: the number of tiles along the shorter side, or side, overlap and top
            of the tiles.
        axis: Axis along which NIfTI volumes are cut into slices: 0 sagittal, 1 coronal, 2 axial.
    """

    def __init__(
        self,
        root: str,
        size: int | tuple[int, int] = 256,
        crop: Crop | Literal["auto"] | None = None,
        batch_size: int = 32,
        validation: float = 0.2,
        views: PretextViews | ViewTransform | None = None,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | None = None,
        check_leaks: bool | Literal["files"] = True,
        window: tuple[float, float] | str | None = None,
        require_masks: bool = False,
        groups: bool = True,
        fit: Fit = "squash",
        tiles: int | Tiles | None = None,
        axis: int = AXIAL,
    ) -> None:
        super().__init__(batch_size, views, num_workers, seed)
        check_overrides(type(views), PretextViews, ("__call__", "complete"))
        between("data.validation", validation, 0, 1)
        if not root:
            raise UserError("data.root is empty. Give the data set's folder.")
        self.root = expand(root)
        self.preprocessing = Preprocessing(size, crop, window, fit, tiles)
        self.validation = validation
        self.cache_dir = expand(cache_dir) if cache_dir else None
        if check_leaks not in (True, False, "files"):
            refuse("data.check_leaks", check_leaks, "true, false or files")
        self.check_leaks = check_leaks
        self.require_masks = require_masks
        self.groups = groups
        self.axis = axis
        self.split: Manifest | None = None  # set when the data set is read
        self.found_layout = type(self).__name__  # name of the layout in messages
        self.processes = 1  # processes on this machine; without a cache, each of them decodes the images itself
        self.division: Division | None = None  # which training images are held out, set when they are read
        self._followed: list[Division | None] = []
        self._own = False
        self._leaks = LeakCheck()

    def follow(self, divisions: Sequence[Division | None], own: bool = False) -> None:
        """Holds out the images that other runs held out, where they used the same images, instead of drawing new ones.

        Args:
            divisions: Divisions of these runs, None for a run whose checkpoint is too old to contain one.
            own: Whether the division is that of the run being resumed or evaluated, rather than of the runs that
                provided the encoders.
        """
        self._followed, self._own = list(divisions), own

    def manifest(self, masks: bool = True) -> Manifest:
        """Returns the manifest of the data set. Subclasses override this with their own layout.

        Args:
            masks: Whether to look for masks. Otherwise no row has any.

        Raises:
            UserError: If the folder does not have the expected layout.
        """
        return expand_stacks(scan_folder(self.root, masks, self.groups), self.groups, self.axis)

    def checked_manifest(self, masks: bool = True) -> Manifest:
        """Returns the result of `manifest`, in which the files exist.

        Raises:
            UserError: If the folder does not have the expected layout, or `manifest` is wrong.
        """
        found = self.manifest(masks=masks)
        if is_packaged(type(self).manifest):  # whose files were found in their folders
            return found
        source = f"{type(self).__module__}.{type(self).__name__}"
        return require_files(require_manifest(found, source, self.groups), source, masks)

    def setup(self, stage: str) -> None:
        """Reads the images that a stage needs.

        Raises:
            UserError: If an image cannot be read or a split is empty.
        """
        if SPLITS[stage][0] not in self.datasets:
            self._read(stage)
        if stage == "fit" and self.check_leaks and self.split:
            ranks = self.trainer.world_size if self.trainer else 1
            similar = self.check_leaks != "files"
            self._leaks.refuse(self.split, self.root, self.cache_dir, ranks, self._has_company(), similar)

    def _has_company(self) -> bool:
        """Returns whether the other ranks are already running, because they were started by an external launcher."""
        if self.trainer is None or self.trainer.world_size == 1:
            return False
        environment = getattr(self.trainer.strategy, "cluster_environment", None)
        return environment is not None and environment.creates_processes_externally

    def _read(self, stage: str) -> None:
        manifest = self.split = self.checked_manifest(masks=stage != "predict")
        if not self.datasets:
            rank_zero_only(print)(f"data: {self.root} ({self.found_layout}): {describe(manifest)}")
        if manifest.flaws:
            raise UserError(str(manifest.flaws[0]))
        if self.require_masks and stage != "predict":
            refuse_missing_masks(manifest)
        if stage in ("fit", "validate"):
            self._read_training_images(manifest.select("train"))
            self._try_views()
            if stage == "fit" and (message := one_sided(manifest)):
                rank_zero_warn(f"{self.root}: {message}")
            return
        rows = manifest.select("test")
        if not rows:
            raise UserError(
                f"{self.root}: no test images; put normal ones into test/good, abnormal ones into test/KIND."
            )
        self.say_window()
        images = self._load([row.path for row in rows])
        self.datasets[SPLITS[stage][0]] = AnomalyDataset(rows, images, self.preprocessing, self.seed, self.views)

    def _read_training_images(self, rows: list[Row]) -> None:
        """Reads training and held-out images as one array, which runs with other seeds divide differently."""
        paths = [row.path for row in rows]
        keys = image_keys(rows, self.split.root if self.split else self.root)
        held_out, source = HoldOut(self.root, self.validation, self.seed, self._followed).draw(rows, keys)
        if source and not self._own:
            rank_zero_only(print)(f"held out: {source}")
        learned = frozenset(key for index, key in enumerate(keys) if index not in held_out)
        self.division = Division(learned, frozenset(keys[index] for index in held_out))
        self._find_window(paths)
        images = self._load(paths, self.processes)
        refuse_flat(images.pixels, self.preprocessing.window, self.root)
        for name, chosen in (("train", False), ("val", True)):
            indices = [index for index in range(len(rows)) if (index in held_out) == chosen]
            own = [rows[index] for index in indices]
            self.datasets[name] = AnomalyDataset(own, images, self.preprocessing, self.seed, self.views, indices)

    def _load(self, paths: list[Path], processes: int = 1) -> Images:
        """Loads images at working size, and prints how their shapes are changed."""
        pickled = self.num_workers > 0 and multiprocessing.get_start_method() != "fork"
        images = load_images(paths, self.preprocessing, self.cache_dir, processes, pickled)
        if isinstance(images.pixels, PixelFile) and self.cache_dir is None:
            kept = f"data: decoded images are kept in {images.pixels.path.parent}"
            rank_zero_only(print)(f"{kept}, for later runs, too (--data.cache_dir sets another folder)")
        if shapes := describe_shapes(images.placements, self.preprocessing):
            rank_zero_only(print)(f"data: {shapes}")
        return images

    def _find_window(self, paths: list[Path]) -> None:
        """Measures the window if it depends on the training images. KeepConfig writes it to the config."""
        found, count = measure_window(paths, self.preprocessing)
        if found:
            self.preprocessing = replace(self.preprocessing, window=found)
            self.say_window(f"{count} of {len(paths)} training images have more than 8 bits: ")
        else:
            self.say_window()

    def say_window(self, images: str = "in images of more than 8 bits, ") -> None:
        """Prints how grey values are mapped, if there is a choice.

        Args:
            images: Start of the message: the images to which this applies.
        """
        if message := describe_window(self.preprocessing.window):
            rank_zero_only(print)(f"data: {images}{message}, in all splits (set others with --data.window)")

    def _try_views(self) -> None:
        """Draws the views of the first image here, so that invalid settings are not reported by a worker process."""
        try:
            self.datasets["train"][EpochIndex(0, 0)]
        except ValueError as error:
            size = self.preprocessing.size_in_words
            raise UserError(f"data.views does not fit images of {size} px: {error}. Give another size.") from error
